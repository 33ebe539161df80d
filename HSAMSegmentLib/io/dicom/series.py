"""Read DICOM series as volumes: find them in a folder, choose one, and read its geometry and values.

A volume needs slices of one size and orientation at even distances. Missing or unevenly spaced slices are rejected,
since a segmentation of them would be in the wrong place.

The grid of a multi-frame file comes from the functional groups of each frame, since ITK always assumes evenly spaced
frames.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.io.dicom.grouping import (
    SAME_PLACE_MM,
    Series,
    check_distances,
    depths_mm,
    group_files,
    listed,
    matching,
)
from HSAMSegmentLib.io.dicom.header import DicomHeader, read_dicom_header
from HSAMSegmentLib.io.dicom.pixels import read_values
from HSAMSegmentLib.io.dicom.placement import usable_orientation
from HSAMSegmentLib.io.dicom.sniff import is_dicom_file, why_not_dicom
from HSAMSegmentLib.io.image_files import grid_notes, name_without_suffix
from HSAMSegmentLib.io.quiet_libraries import quiet_libraries
from HSAMSegmentLib.runtime.serialization import pair, triple

_STEP_TOLERANCE = 0.02
_SAME_PLACE_MM = 1e-3
_SAME_NUMBER = 1e-4
ADVICE = "convert it with dcm2niix and open the NIfTI file"

__all__ = ["Series", "is_dicom_file", "list_series", "read_file", "read_folder", "unreadable_files"]


def geometry_of_frames(header: DicomHeader) -> Geometry:
    """The grid of the frames of a file, in order.

    Raises:
        VolumeError: if a frame has no position, or if the frames, in order, are not evenly spaced.
    """
    places = header.frame_places
    positions = [place.position for place in places]
    orientation = usable_orientation(places[0].orientation) if places else None
    spacings = [place.spacing for place in places]
    known = None not in positions and _all_same([place.orientation for place in places]) and _all_same(spacings)
    spacing = spacings[0] if spacings else None
    if not known or orientation is None or spacing is None:
        raise VolumeError(
            f'"{header.path.name}" holds {header.frames} frames and does not say in a readable way where each of them '
            f"is; {ADVICE}."
        )
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    step = _even_step(np.array(positions), np.cross(row, column), header)
    distance = float(np.linalg.norm(step))
    return Geometry(
        size=(*header.size, header.frames),
        spacing_mm=(spacing[1], spacing[0], distance),
        origin_mm=triple(positions[0] or ()),
        direction=tuple(np.array([row, column, step / distance]).T.ravel().tolist()),
    )


def _all_same(values: list[tuple[float, ...] | None]) -> bool:
    return None not in values and bool(values) and bool(np.ptp(cast(Any, values), axis=0).max() < _SAME_NUMBER)


def _even_step(positions: np.ndarray, normal: np.ndarray, header: DicomHeader) -> np.ndarray:
    """LPS mm from one frame to the next."""
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    expected = positions[0] + np.arange(len(positions))[:, np.newaxis] * step
    deviation = np.abs(positions - expected).max()
    across = abs(float(step @ normal))
    if across < _SAME_PLACE_MM or across < np.linalg.norm(step) / 2 or deviation > _STEP_TOLERANCE * across:
        raise VolumeError(
            f'The {header.frames} frames of "{header.path.name}" are not an even stack in their order: slices are '
            f"missing, mixed up, or of several time points or echoes; {ADVICE}."
        )
    array: np.ndarray = step
    return array


@dataclass(frozen=True)
class DicomVolume:
    """A series that was read.

    Attributes:
        array: real values [k, j, i].
        geometry: its grid.
        name: for reports.
        modality: "CT", "MR" or "".
        notes: sentences on what had to be repaired.
        series: ID of the series.
        files: the files in slice order; a single one may hold all slices.
    """

    array: np.ndarray
    geometry: Geometry
    name: str
    modality: str
    notes: tuple[str, ...]
    series: str
    files: tuple[Path, ...]


def list_series(folder: str | Path) -> list[Series]:
    """List the volumes in the DICOM files of a folder and its subfolders, by series number.

    Raises:
        VolumeError: if there is no such folder, or no DICOM image in it.
    """
    return _list_series(Path(folder))[0]


def read_folder(folder: Path, series: str | None = None) -> DicomVolume:
    """Read the requested series, or the only one.

    Raises:
        VolumeError: if the choice of series is ambiguous, or the series forms no volume.
    """
    found, unreadable = _list_series(folder)
    chosen = _choose(found, series, folder)
    try:
        volume = _read_series(chosen, chosen.description or folder.name)
    except VolumeError as error:
        if not unreadable:
            raise
        raise VolumeError(f"{error} {_left_out(unreadable)}") from error
    return replace(volume, notes=volume.notes + ((_left_out(unreadable),) if unreadable else ()))


def read_file(path: Path, series: str | None = None) -> DicomVolume:
    """Read the volume of a DICOM file: its own frames, or its series in the same folder.

    The index of a disc (DICOMDIR) stands for its folder.

    Raises:
        VolumeError: if the file holds no image, or if its series forms no volume.
    """
    reason = why_not_dicom(path)
    if reason:
        raise VolumeError(f'"{path.name}" {reason}.')
    header = read_dicom_header(path)
    if header is not None and header.is_media_directory:
        return read_folder(path.parent, series)
    if header is not None and not header.is_scan:
        raise VolumeError(f'"{path.name}" is not a scan but a DICOM object of the kind {header.kind}; choose the scan.')
    if header is None or not header.has_pixels:
        raise VolumeError(f'"{path.name}" is a DICOM file without a readable image (or it is damaged).')
    own = _series_beside(header)
    volume = _read_series(own, own.description or name_without_suffix(path))
    if len(own.headers) == 1:
        return volume
    note = f"The file belongs to a series; all {len(own.headers)} files of it were read."
    return replace(volume, notes=(note, *volume.notes))


def unreadable_files(folder: Path) -> dict[str, str]:
    """Files directly in this folder with DICOM names but other content: what each is, by name."""
    reasons = {path.name: why_not_dicom(path) for path in _files_in(folder) if is_dicom_file(path)}
    return {name: reason for name, reason in reasons.items() if reason}


def _list_series(folder: Path) -> tuple[list[Series], dict[str, str]]:
    """The volumes below a folder, and the DICOM files that cannot be read."""
    if not folder.is_dir():
        raise VolumeError(f'There is no folder "{folder}"; check the path.')
    headers, unreadable = _headers_below(folder)
    images = [header for header in headers if header.is_scan and header.has_pixels]
    found = group_files([header for header in images if not header.is_picture] or images)
    if not found:
        raise VolumeError(_nothing_found(folder, headers, unreadable))
    return found, unreadable


def _nothing_found(folder: Path, headers: Sequence[DicomHeader], unreadable: dict[str, str]) -> str:
    kinds = Counter(header.kind for header in headers if not header.is_scan and not header.is_media_directory)
    there = f" (there is {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))})" if kinds else ""
    sentence = (
        f'There is no DICOM image of a scan in the folder "{folder}"{there}; choose the file of the scan instead.'
    )
    return f"{sentence} {_left_out(unreadable)}" if unreadable else sentence


def _left_out(unreadable: dict[str, str]) -> str:
    name, reason = next(iter(unreadable.items()))
    more = f", and {len(unreadable) - 1} more files cannot be read" if len(unreadable) > 1 else ""
    return f'"{name}" {reason}{more}.'


def _headers_below(folder: Path) -> tuple[list[DicomHeader], dict[str, str]]:
    headers: list[DicomHeader] = []
    unreadable: dict[str, str] = {}
    with quiet_libraries():
        for parent, folders, _ in os.walk(folder):
            folders.sort()
            for path in _files_in(Path(parent)):
                header = read_dicom_header(path)
                if header is not None:
                    headers.append(header)
                elif is_dicom_file(path):
                    unreadable[path.name] = why_not_dicom(path) or "is damaged; copy or download it again"
    return headers, unreadable


def _files_in(folder: Path) -> Iterator[Path]:
    """Files that may be DICOM; neither the index of a disc nor the companion files of macOS."""
    for path in sorted(folder.iterdir()):
        is_there = path.is_file() or (path.is_symlink() and not path.exists())
        if is_there and not path.name.startswith("._") and path.name.upper() != "DICOMDIR":
            yield path


def _series_beside(header: DicomHeader) -> Series:
    """The volume of a file: the files of its series in its folder, or itself."""
    if header.frames == 1:
        with quiet_libraries():
            others = [read_dicom_header(path) for path in _files_in(header.path.parent)]
        beside = [other for other in others if other is not None and other.series_key == header.series_key]
        beside = [other for other in beside if other.is_scan and other.has_pixels]
        for found in group_files(beside):
            if any(part.path == header.path for part in found.headers):
                return found
    return group_files([header])[0]


def _choose(found: list[Series], wanted: str | None, folder: Path) -> Series:
    candidates = found
    if wanted is not None:
        candidates = matching(found, wanted)
        if not candidates:
            raise VolumeError(f'There is no series "{wanted}" in "{folder}". There is {listed(found)}.')
    elif len(found) > 1:
        candidates = [volume for volume in found if not volume.is_localizer] or found
        candidates = [volume for volume in candidates if volume.slice_count > 1] or candidates
    if len(candidates) > 1:
        raise VolumeError(
            f'"{folder}" holds several series; name the one to use. There is {listed(candidates, among=found)}.'
        )
    return candidates[0]


def _read_series(series: Series, name: str) -> DicomVolume:
    _check_kind(series)
    series, copies = _without_doubles(series)
    first = series.headers[0]
    notes: tuple[str, ...] = ()
    if first.frames > 1:
        geometry = geometry_of_frames(first)
    elif len(series.headers) == 1:
        geometry, notes = _place_of_single_slice(first)
    else:
        notes = check_distances(series)
        geometry = _place_of_slices(series)
    array, more = read_values(series.headers)
    if first.storage.photometric == "MONOCHROME1" and series.modality != "CT":
        more = (*more, "The file shows low values bright (MONOCHROME1); they were taken as they are stored.")
    modality = series.modality if series.modality in ("CT", "MR") else ""
    all_notes = (*copies, *notes, *more, *grid_notes(geometry))
    files = tuple(header.path for header in series.headers)
    return DicomVolume(array, geometry, name, modality, all_notes, series.id, files)


def _without_doubles(series: Series) -> tuple[Series, tuple[str, ...]]:
    """The series without slices that duplicate position and values of another, and a note if there were any."""
    kept: list[DicomHeader] = []
    for header, gap in zip(series.headers, np.diff(depths_mm(series.headers), prepend=-np.inf)):
        if gap >= SAME_PLACE_MM or header.position is None or not _hold_the_same(kept[-1], header):
            kept.append(header)
    count = len(series.headers) - len(kept)
    if not count:
        return series, ()
    return replace(series, headers=tuple(kept)), (f"{count} slices are in the files twice; one of each was used.",)


def _hold_the_same(one: DicomHeader, other: DicomHeader) -> bool:
    return bool(np.array_equal(read_values([one])[0], read_values([other])[0]))


def _check_kind(series: Series) -> None:
    """Ensure that the images are slices with one gray value per pixel.

    Raises:
        VolumeError: if they are mosaics or color pictures.
    """
    first = series.headers[0]
    if first.is_mosaic:
        raise VolumeError(
            f'"{first.path.name}" is a Siemens mosaic: all slices of a volume lie side by side in one picture; '
            f"{ADVICE}."
        )
    if first.storage.samples > 1 or first.storage.photometric == "PALETTE COLOR":
        raise VolumeError(f'"{first.path.name}" is a color picture, not a scan; choose the original gray-level image.')


def _place_of_single_slice(header: DicomHeader) -> tuple[Geometry, tuple[str, ...]]:
    """The grid of one slice: its position and thickness, as far as the file states them."""
    size = (*header.size, 1)
    thickness = header.thickness_mm or 1.0
    if header.position is None or header.orientation is None:
        row, column = header.pixel_spacing_mm or (1.0, 1.0)
        sentence = "The DICOM file does not say where its image is in the patient; left and right are not sure."
        unknown = "" if header.pixel_spacing_mm else " Nor does it say the size of its pixels; 1 mm was taken."
        return Geometry(size, (column, row, thickness)), (sentence + unknown,)
    row, column = _pixel_spacing(header)
    direction = _columns(header.orientation[:3], header.orientation[3:], header.normal)
    return Geometry(size, (column, row, thickness), header.position, direction), ()


def _place_of_slices(series: Series) -> Geometry:
    """The grid of slices, from the first and the last of them, including a tilted gantry."""
    first, last = series.headers[0], series.headers[-1]
    step = (np.array(last.position) - np.array(first.position)) / (len(series.headers) - 1)
    distance = float(np.linalg.norm(step))
    row, column = _pixel_spacing(first)
    orientation = first.orientation or ()  # slices without a position are not a series of slices
    return Geometry(
        size=(*first.size, len(series.headers)),
        spacing_mm=(column, row, distance),
        origin_mm=first.position or (0.0, 0.0, 0.0),
        direction=_columns(orientation[:3], orientation[3:], step / distance),
    )


def _pixel_spacing(header: DicomHeader) -> tuple[float, float]:
    if header.pixel_spacing_mm is None:
        raise VolumeError(
            f'"{header.path.name}" does not say the size of its pixels (PixelSpacing), so no volume can be measured; '
            "export the series again."
        )
    return pair(header.pixel_spacing_mm)


def _columns(*vectors: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in np.array(vectors, dtype=float).T.ravel())
