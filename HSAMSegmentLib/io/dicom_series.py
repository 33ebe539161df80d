"""DICOM series as volumes: which files of a folder belong together, in what order, and whether they are complete.

A volume needs slices of one size and orientation at even distances. Files are grouped by series, orientation and size;
where several images share a place (echoes, time points, b-values), each set becomes a volume of its own. Missing or
unevenly spaced slices are refused, since a segmentation of them would be in the wrong place.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.images.sitk_images import place_image, quiet_itk
from HSAMSegmentLib.io.dicom_frames import geometry_of_frames
from HSAMSegmentLib.io.dicom_header import (
    SPLITTING_TAGS,
    DicomHeader,
    gdcm_reader,
    is_dicom_file,
    read_dicom_header,
)
from HSAMSegmentLib.io.image_files import as_three_dimensional, geometry_notes, name_without_suffix

__all__ = ["Series", "is_dicom_file", "list_series", "read_file", "read_folder"]

# Distances of slices may differ by this part without a word, and with a note.
_EVEN, _NEARLY_EVEN = 0.02, 0.10
# So many pixels may a slice lie beside the line through the others without a word, and with a note.
_IN_LINE, _NEARLY_IN_LINE = 0.1, 0.5
_SAME_PLACE_MM = 1e-3
_LISTED_SERIES = 8
_SCOUT_WORDS = ("localizer", "localiser", "scout", "topogram", "survey")


@dataclass(frozen=True)
class DicomVolume:
    """What was read of a series.

    Attributes:
        image: voxels and grid.
        name: for reports.
        modality: "CT", "MR" or "".
        notes: sentences on what had to be mended.
        series: id of the series.
    """

    image: sitk.Image
    name: str
    modality: str
    notes: tuple[str, ...]
    series: str


@dataclass(frozen=True)
class Series:
    """Files that form one volume.

    Attributes:
        id: series instance UID; with "/2", "/3", ... for further volumes of the same series.
        number: series number as text, may be empty.
        description: series description, and what tells this volume from others of its series.
        modality: DICOM's modality.
        headers: of its files, in the order of the slices.
    """

    id: str
    number: str
    description: str
    modality: str
    headers: tuple[DicomHeader, ...]

    @property
    def slice_count(self) -> int:
        """How many slices the volume has."""
        return sum(header.frames for header in self.headers)

    @property
    def is_localizer(self) -> bool:
        """Whether these are scout images, which are not chosen where there is something else."""
        words = self.description.lower()
        return any(header.is_localizer for header in self.headers) or any(word in words for word in _SCOUT_WORDS)

    def __str__(self) -> str:
        number = f"series {self.number}" if self.number else self.id
        return f'{number} "{self.description}" ({self.modality}, {self.slice_count} slices)'


def list_series(folder: str | Path) -> list[Series]:
    """The volumes in the DICOM files of a folder and the folders in it, by series number.

    Raises:
        VolumeError: if there is no such folder or no DICOM image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise VolumeError(f'There is no folder "{folder}"; check the path.')
    headers = [header for header in _headers_below(folder) if header.is_scan]
    found = _series_of([header for header in headers if not header.is_screenshot] or headers)
    if not found:
        raise VolumeError(
            f'There is no DICOM image of a scan in the folder "{folder}"; choose the file of the scan instead.'
        )
    return found


def read_folder(folder: Path, series: str | None = None) -> DicomVolume:
    """Read the series that is asked for, or the only one there is.

    Raises:
        VolumeError: if it is not clear which series is meant, or if it forms no volume.
    """
    chosen = _choose(list_series(folder), series, folder)
    return _read_series(chosen, chosen.description or folder.name)


def read_file(path: Path, series: str | None = None) -> DicomVolume:
    """Read the volume that a DICOM file belongs to: itself if it holds several frames, else its series beside it.

    Raises:
        VolumeError: if the file holds no image, or if its series forms no volume.
    """
    header = read_dicom_header(path)
    if header is None:
        raise VolumeError(f'"{path.name}" is a DICOM file without a readable image (or it is damaged).')
    if not header.is_scan:
        raise VolumeError(
            f'"{path.name}" is no scan but a DICOM object of the kind {header.modality}; choose the scan.'
        )
    beside = [other for other in _headers_in(path.parent) if other.series_uid == header.series_uid]
    own = [found for found in _series_of(beside) if any(part.path == path for part in found.headers)]
    if header.frames > 1 or not own:
        own = _series_of([header])
    volume = _read_series(own[0], own[0].description or name_without_suffix(path))
    if len(own[0].headers) == 1:
        return volume
    note = f"The file belongs to a series; all {len(own[0].headers)} files of it were read."
    return replace(volume, notes=(note, *volume.notes))


def _headers_below(folder: Path) -> list[DicomHeader]:
    headers = []
    for parent, folders, _ in os.walk(folder):
        folders.sort()
        headers += _headers_in(Path(parent))
    return headers


def _headers_in(folder: Path) -> list[DicomHeader]:
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and os.access(path, os.R_OK)]
    headers = [read_dicom_header(path) for path in paths if path.name != "DICOMDIR" and is_dicom_file(path)]
    return [header for header in headers if header is not None]


def _series_of(headers: list[DicomHeader]) -> list[Series]:
    """Group files to volumes, sorted by series number."""
    groups: dict[tuple, list[DicomHeader]] = defaultdict(list)
    for header in headers:
        direction = None if header.orientation is None else tuple(np.round(header.orientation, 2) + 0.0)
        several = header.instance_uid if header.frames > 1 else ""
        groups[(header.series_uid, header.size, direction, _spacing_key(header), several)].append(header)
    parts: dict[str, list[Series]] = defaultdict(list)
    for (uid, *_), members in groups.items():
        parts[uid] += [_series(part, name) for part, name in _split_shared_places(_without_copies(members))]
    found = [volume for uid in parts for volume in _numbered(parts[uid])]
    return sorted(found, key=lambda volume: (_as_number(volume.number), volume.id))


def _spacing_key(header: DicomHeader) -> tuple[int, ...] | None:
    """Pixel spacing in 1024ths of a mm: a field of view by a power of two falls on a number, not between."""
    if header.pixel_spacing_mm is None:
        return None
    return tuple(round(1024 * value) for value in header.pixel_spacing_mm)


def _as_number(text: str) -> float:
    return float(text) if text.isdecimal() else np.inf


def _series(headers: list[DicomHeader], name: str) -> Series:
    first = headers[0]
    description = " ".join(part for part in (first.description, f"({name})" if name else "") if part)
    ordered = tuple(sorted(headers, key=lambda header: header.depth_mm))
    return Series(first.series_uid, first.series_number, description, first.modality, ordered)


def _numbered(volumes: list[Series]) -> list[Series]:
    """Tell volumes of one series apart: the largest keeps the UID, further ones get a number."""
    volumes = sorted(volumes, key=lambda volume: -volume.slice_count)
    return [volume if n == 0 else replace(volume, id=f"{volume.id}/{n + 1}") for n, volume in enumerate(volumes)]


def _without_copies(headers: list[DicomHeader]) -> list[DicomHeader]:
    """One file per image, where a folder holds copies of the same file."""
    return list({header.instance_uid: header for header in reversed(headers)}.values())[::-1]


def _split_shared_places(headers: list[DicomHeader]) -> list[tuple[list[DicomHeader], str]]:
    """Sets of images without two at the same place, by the first tag that tells them apart."""
    if not _share_places(headers):
        return [(headers, "")]
    for position, meaning in enumerate(SPLITTING_TAGS.values()):
        sets: dict[str, list[DicomHeader]] = defaultdict(list)
        for header in headers:
            sets[header.splitting[position]].append(header)
        if len(sets) > 1 and not any(_share_places(members) for members in sets.values()):
            return [(members, f"{meaning} {value}".strip()) for value, members in sets.items()]
    return [(headers, "")]


def _share_places(headers: list[DicomHeader]) -> bool:
    depths = np.sort([header.depth_mm for header in headers])
    return bool(np.any(np.diff(depths) < _SAME_PLACE_MM))


def _choose(found: list[Series], wanted: str | None, folder: Path) -> Series:
    candidates = found
    if wanted is not None:
        candidates = _matching(found, wanted)
        if not candidates:
            raise VolumeError(f'There is no series "{wanted}" in "{folder}". There is {_listed(found)}.')
    elif len(found) > 1:
        candidates = [volume for volume in found if not volume.is_localizer] or found
        candidates = [volume for volume in candidates if volume.slice_count > 1] or candidates
    if len(candidates) > 1:
        raise VolumeError(f'"{folder}" holds several series; name the one to use. There is {_listed(candidates)}.')
    return candidates[0]


def _matching(found: list[Series], wanted: str) -> list[Series]:
    for key in (lambda volume: volume.id, lambda volume: volume.number, lambda volume: volume.description.lower()):
        matches = [volume for volume in found if key(volume) in (wanted, wanted.lower())]
        if matches:
            return matches
    return []


def _listed(found: list[Series]) -> str:
    names = [str(volume) for volume in found[:_LISTED_SERIES]]
    more = len(found) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _read_series(series: Series, name: str) -> DicomVolume:
    headers = series.headers
    modality = series.modality if series.modality in ("CT", "MR") else ""
    with quiet_itk():
        try:
            if headers[0].frames > 1:
                grid = geometry_of_frames(headers[0])
                image, notes = as_three_dimensional(gdcm_reader(headers[0].path).Execute()), ()
                place_image(image, grid)
            elif len(headers) == 1:
                image = as_three_dimensional(gdcm_reader(headers[0].path).Execute())
                notes = _place_single_slice(image, headers[0])
            else:
                notes = _check_distances(series)
                image = _read_slices(series)
                _place_slices(image, headers)
        except RuntimeError as error:
            raise VolumeError(
                f"The DICOM files of {series} cannot be decoded: damaged, or a compression that is not supported."
            ) from error
    return DicomVolume(image, name, modality, notes + geometry_notes(image), series.id)


def _read_slices(series: Series) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(header.path) for header in series.headers])
    if len({header.rescale for header in series.headers}) > 1:
        # Otherwise the first slice decides on the type, and fractions and large values of the others are lost.
        reader.SetOutputPixelType(sitk.sitkFloat32)
    return reader.Execute()


def _place_single_slice(image: sitk.Image, header: DicomHeader) -> tuple[str, ...]:
    """Give one slice its place and its thickness."""
    spacing = image.GetSpacing()
    if header.thickness_mm > 0:
        image.SetSpacing((spacing[0], spacing[1], header.thickness_mm))
    if header.position is None or header.orientation is None:
        return ("The DICOM file does not say where its image is in the patient; left and right are not sure.",)
    image.SetOrigin(header.position)
    image.SetDirection(_columns(header.orientation[:3], header.orientation[3:], header.normal))
    return ()


def _place_slices(image: sitk.Image, headers: tuple[DicomHeader, ...]) -> None:
    """Set origin, direction and slice distance from the first and the last slice, a tilted gantry included."""
    first, last = headers[0], headers[-1]
    step = (np.array(last.position) - np.array(first.position)) / (len(headers) - 1)
    distance = float(np.linalg.norm(step))
    spacing = image.GetSpacing()
    image.SetSpacing((spacing[0], spacing[1], distance))
    image.SetOrigin(first.position)
    image.SetDirection(_columns(first.orientation[:3], first.orientation[3:], step / distance))


def _columns(*vectors: tuple[float, ...]) -> list[float]:
    return [float(value) for value in np.array(vectors, dtype=float).T.ravel()]


def _check_distances(series: Series) -> tuple[str, ...]:
    """Make sure that the slices are at even distances on one line.

    Raises:
        VolumeError: if slices are missing, doubled, unevenly spaced, or shifted sideways.
    """
    headers = series.headers
    if any(header.position is None or header.orientation is None for header in headers):
        raise VolumeError(f"The files of {series} do not say where their slices are; they form no volume.")
    gaps = np.diff([header.depth_mm for header in headers])
    doubled = int(np.count_nonzero(gaps < _SAME_PLACE_MM))
    if doubled:
        raise VolumeError(f"{doubled} slices of {series} are at the same place as another; it is not one volume.")
    usual = float(np.median(gaps))
    missing = int(np.sum(np.maximum(np.round(gaps / usual) - 1, 0)))
    span = f"{gaps.min():.2f} to {gaps.max():.2f} mm"
    if missing:
        raise VolumeError(f"{missing} slices of {series} are missing (distances are {span}); export the series again.")
    deviation = float(np.abs(gaps / usual - 1.0).max())
    if deviation > _NEARLY_EVEN:
        raise VolumeError(f"The slices of {series} are unevenly spaced ({span}); resample it to even distances first.")
    notes = _check_line(series)
    if deviation > _EVEN:
        notes = (f"The distances of slices vary ({span}); their mean was used.", *notes)
    return notes


def _check_line(series: Series) -> tuple[str, ...]:
    """Make sure that the first pixels of the slices are on one line."""
    positions = np.array([header.position for header in series.headers])
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    offsets = positions - positions[0] - np.arange(len(positions))[:, np.newaxis] * step
    normal = series.headers[0].normal
    beside = float(np.linalg.norm(offsets - np.outer(offsets @ normal, normal), axis=1).max())
    pixel = min(series.headers[0].pixel_spacing_mm or (1.0,))
    if beside > _NEARLY_IN_LINE * pixel:
        raise VolumeError(
            f"The slices of {series} do not line up (one is shifted sideways by {beside:.2f} mm), so they form no "
            "volume; export the series again, or resample it to one grid first."
        )
    if beside > _IN_LINE * pixel:
        return (f"Slices are shifted sideways by up to {beside:.2f} mm; they were taken as lined up.",)
    return ()
