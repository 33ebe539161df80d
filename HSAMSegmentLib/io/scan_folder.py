"""Find the scans of a folder: volume files and DICOM series, at any depth, each with a name for its results.

Label maps among them are recognized by location, name and content.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from HSAMSegmentLib.errors import HSAMSegmentError, RequestError, VolumeError
from HSAMSegmentLib.images.geometry import Geometry, same_grid
from HSAMSegmentLib.images.sitk_images import geometry_of
from HSAMSegmentLib.io.dicom.series import unreadable_files
from HSAMSegmentLib.io.dicom.sniff import has_dicom_content
from HSAMSegmentLib.io.image_files import (
    IMAGE_SUFFIXES,
    SEGMENTATION_SUFFIXES,
    content_problem,
    name_without_suffix,
    read_image,
)
from HSAMSegmentLib.io.nifti_files import read_nifti_header
from HSAMSegmentLib.io.quiet_libraries import quiet_libraries
from HSAMSegmentLib.io.volume_files import list_series

_NNUNET_FOLDER = re.compile(r"labels(Tr|Ts|Va|Val)", re.IGNORECASE)
_BIDS_SUFFIX = re.compile(r"_(dseg|probseg)$", re.IGNORECASE)
_LIKELY_SUFFIX = re.compile(r"[_-](mask|seg|segmentation|labels?)$", re.IGNORECASE)
# Scans of the body always have more distinct integer values than this.
_MOST_LABELS = 150
_HIGHEST_LABEL = 2000
_NIFTI_INTEGERS = {2, 4, 8, 256, 512, 768, 1024, 1280}
_ITK_INTEGERS = {
    sitk.sitkInt8, sitk.sitkUInt8, sitk.sitkInt16, sitk.sitkUInt16, sitk.sitkInt32, sitk.sitkUInt32,
    sitk.sitkInt64, sitk.sitkUInt64,
}  # fmt: skip


def label_maps(files: Sequence[Path], root: Path) -> dict[Path, str]:
    """Find the label maps among the files of one folder, each with a sentence on the reason.

    Args:
        files: image files in the same folder.
        root: the selected folder; its own name and those of its parents are ignored.
    """
    reasons = {file: reason for file in files if (reason := _reason_by_name(file, root))}
    reasons.update(_reasons_by_content([file for file in files if file not in reasons]))
    return reasons


def _reason_by_name(file: Path, root: Path) -> str:
    if file.name.lower().endswith(SEGMENTATION_SUFFIXES):
        return f'"{file.name}" is a segmentation and not a scan; it was skipped.'
    for part in file.relative_to(root).parts[:-1]:
        if _NNUNET_FOLDER.fullmatch(part):
            return f'"{file.name}" is in "{part}", where nnU-Net keeps labels; it was skipped.'
    stem = name_without_suffix(file)
    bids = _BIDS_SUFFIX.search(stem)
    if bids:
        return f'"{file.name}" is a segmentation by its BIDS suffix "{bids.group(0)}"; it was skipped.'
    if _LIKELY_SUFFIX.search(stem) and _labels_grid(file) is not None:
        return f'"{file.name}" is a label map by its name and content; it was skipped.'
    return ""


def _reasons_by_content(files: Sequence[Path]) -> dict[Path, str]:
    """Read only files of equal size, since a label map is recognized by the scan on its grid."""
    by_size: dict[tuple[int, ...], list[tuple[Path, bool]]] = defaultdict(list)
    for file in files:
        size, is_integer = _size_and_kind(file)
        if size:
            by_size[size].append((file, is_integer))
    reasons = {}
    for group in by_size.values():
        if len(group) > 1:
            reasons.update(_label_maps_of_one_size(group))
    return reasons


def _label_maps_of_one_size(group: Sequence[tuple[Path, bool]]) -> dict[Path, str]:
    grids = {file: grid for file, is_integer in group if is_integer and (grid := _labels_grid(file)) is not None}
    scans = [file for file, _ in group if file not in grids] if grids else []
    reasons = {}
    for scan in scans:
        try:
            place = geometry_of(read_image(scan)[0])
        except VolumeError:  # reported when the file itself is processed
            continue
        for file, grid in grids.items():
            if file not in reasons and same_grid(grid, place):
                reasons[file] = f'"{file.name}" is a label map on the grid of "{scan.name}"; it was skipped.'
        if len(reasons) == len(grids):
            break
    return reasons


def _size_and_kind(file: Path) -> tuple[tuple[int, ...], bool]:
    """Dimensions of a file and whether it stores integers; no dimensions if its header is unreadable."""
    try:
        header = read_nifti_header(file)
    except (VolumeError, OSError):
        return (), False
    if header is not None:
        return header.size, header.data_type in _NIFTI_INTEGERS
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    with quiet_libraries():
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            return (), False
    return tuple(reader.GetSize()), reader.GetPixelID() in _ITK_INTEGERS


def _labels_grid(file: Path) -> Geometry | None:
    """The grid of a file with few integer values from 0 on, mostly 0; None for any other file."""
    try:
        image, _ = read_image(file)
    except (VolumeError, OSError):
        return None
    if image.GetNumberOfComponentsPerPixel() > 1:
        return None
    array = sitk.GetArrayViewFromImage(image)
    return geometry_of(image) if _holds_labels(array) else None


def _holds_labels(array: np.ndarray) -> bool:
    if array.dtype.kind not in "biuf" or not array.size:
        return False
    low, high = array.min(), array.max()
    if not (low == 0 and 0 < high <= _HIGHEST_LABEL) or 2 * np.count_nonzero(array) >= array.size:
        return False
    if array.dtype.kind == "f" and not np.array_equal(array, np.round(array)):
        return False
    values: set[int] = set()
    for part in array:  # slice by slice, since a copy of the whole takes eight bytes per voxel
        values.update(np.flatnonzero(np.bincount(part.ravel().astype(np.int64))).tolist())
        if len(values) > _MOST_LABELS:
            return False
    return _is_patchy(array)


def _is_patchy(array: np.ndarray) -> bool:
    """Whether nonzero neighbors mostly share a value, as in labels and unlike in a noisy scan."""
    left, right = array[..., :-1], array[..., 1:]
    inside = (left != 0) & (right != 0)
    pairs = np.count_nonzero(inside)
    return bool(pairs == 0 or np.count_nonzero(inside & (left == right)) >= 0.7 * pairs)


@dataclass(frozen=True)
class Scan:
    """One scan of a folder.

    Attributes:
        path: file, or the folder with its DICOM files.
        name: unique path below the input folder without suffix; names the results.
        series: series in the folder, or None for a file or a single series.
        problem: why it cannot be read, if already known; else empty.
        uid: shared only by files of the same DICOM series; empty for other files or without a series UID.
        skipped: why it is skipped though nothing is wrong with it (a label map, for example); else empty.
    """

    path: Path
    name: str
    series: str | None = None
    problem: str = ""
    uid: str = ""
    skipped: str = ""


def find_scans(folder: str | Path, *, ignored: Path | None = None) -> tuple[Scan, ...]:
    """Find all scans of a folder, sorted by name and followed by what is skipped; localizers are left out.

    Label maps, links to folders and DICOMDIR files are skipped, each with a sentence. Broken links and unreadable
    folders are scans with a problem, since the scans they stand for are missing from the results.

    Args:
        folder: folder to search, including subfolders.
        ignored: folder to ignore: that of the results, if it is inside `folder`.

    Raises:
        RequestError: if the folder does not exist or holds no scan.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RequestError(f"There is no folder {folder}; check the path.")
    found = sorted(_whole_series(list(_walk(folder, folder, ignored))), key=lambda scan: (scan.name, str(scan.path)))
    skipped = [scan for scan in found if scan.skipped]
    scans = [scan for scan in found if not scan.skipped]
    if not scans:
        why = f" {skipped[0].skipped}" if skipped else ""
        raise RequestError(
            f"There is no scan in {folder}. Scans are DICOM files and files that end in {', '.join(IMAGE_SUFFIXES)}."
            f"{why}"
        )
    return tuple(with_unique_names(scans + skipped))


def _walk(folder: Path, root: Path, ignored: Path | None) -> Iterator[Scan]:
    try:
        entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    except OSError as error:
        reason = error.strerror or type(error).__name__
        yield Scan(folder, _name(folder, root), problem=f'The folder "{folder}" cannot be opened ({reason}).')
        return
    files = [entry for entry in entries if entry.is_file()]
    dicom = {file for file in files if file.name.upper() != "DICOMDIR" and has_dicom_content(file)}
    if dicom:
        yield from _series_of(folder, root)
    yield from _unreadable(folder, root)
    yield from _volumes([file for file in files if file not in dicom], root)
    for entry in entries:
        yield from _no_file(entry, root)
        if entry.is_dir() and not entry.is_symlink() and (ignored is None or entry.resolve() != ignored.resolve()):
            yield from _walk(entry, root, ignored)


def _volumes(files: list[Path], root: Path) -> Iterator[Scan]:
    """The volume files; label maps and lists of DICOM files are marked as skipped."""
    volumes = [file for file in files if _is_volume(file)]
    segmentations = [file for file in files if file.name.lower().endswith(SEGMENTATION_SUFFIXES)]
    labels = label_maps(volumes + segmentations, root)
    for file in volumes + segmentations:
        yield Scan(file, _name(file, root), skipped=labels.get(file, ""))
    for file in files:
        if file.name.upper() == "DICOMDIR":
            yield Scan(
                file, _name(file, root), skipped=f'"{file.name}" lists DICOM files and is not a scan; it was skipped.'
            )


def _no_file(entry: Path, root: Path) -> Iterator[Scan]:
    """Broken links, and links to folders, which are not followed because they may be circular."""
    if not entry.is_symlink():
        return
    if entry.is_dir():
        yield Scan(
            entry,
            _name(entry, root),
            skipped=f'"{entry.name}" is a link to a folder, which is not followed; choose that folder itself.',
        )
    elif not entry.exists() and _may_be_an_image(entry):
        yield Scan(entry, _name(entry, root), problem=content_problem(entry))


def _may_be_an_image(entry: Path) -> bool:
    return entry.name.lower().endswith(IMAGE_SUFFIXES) or not entry.suffix


def _name(path: Path, root: Path) -> str:
    return root.resolve().name if path == root else str(path.with_name(name_without_suffix(path)).relative_to(root))


def _series_of(folder: Path, root: Path) -> Iterator[Scan]:
    """The series with files directly in this folder."""
    name = str(folder.relative_to(root)) if folder != root else folder.resolve().name
    try:
        below = list_series(folder)
    except HSAMSegmentError as error:
        yield Scan(folder, name, problem=str(error))
        return
    found = [series for series in below if series.headers[0].path.parent == folder]
    wanted = [series for series in found if not series.is_localizer] or found
    often = Counter(series.number for series in wanted)
    for series in wanted:
        own = series.number if series.number and often[series.number] == 1 else series.id.replace("/", "-")
        yield Scan(
            folder,
            name if len(wanted) == 1 else f"{name}_{own}",
            None if len(below) == 1 else series.id,
            uid="\0".join(series.key) if series.headers[0].series_uid else "",
        )


def _unreadable(folder: Path, root: Path) -> Iterator[Scan]:
    """One line for the files of a folder with DICOM names but other content."""
    reasons = unreadable_files(folder)
    if reasons:
        name, reason = next(iter(reasons.items()))
        more = f", and {len(reasons) - 1} more files of the folder cannot be read" if len(reasons) > 1 else ""
        file = folder / name
        own = str((folder / name_without_suffix(file)).relative_to(root))
        yield Scan(file, own, problem=f'"{name}" {reason}{more}.')


def _whole_series(scans: list[Scan]) -> Iterator[Scan]:
    """Mark series with files in several folders as a problem: each part would be taken for a whole scan."""
    folders: dict[str, list[str]] = {}
    for scan in scans:
        folders.setdefault(scan.uid, []).append(str(scan.path))
    for scan in scans:
        places = folders[scan.uid]
        if not scan.uid or len(places) == 1:
            yield scan
            continue
        yield replace(
            scan,
            problem=f"Files of one series are in several folders: {', '.join(places)}. Put them into one folder, or "
            "move copies away.",
        )


def _is_volume(file: Path) -> bool:
    name = file.name.lower()
    if name.endswith(SEGMENTATION_SUFFIXES) or not name.endswith(IMAGE_SUFFIXES):
        return False
    return not (name.endswith(".img") and file.with_suffix(".hdr").exists())


def with_unique_names(scans: Sequence[Scan]) -> Iterator[Scan]:
    """Make names unique: add the suffix to files that differ only in suffix, and a number to the rest.

    Names that differ only in case count as equal, since on some disks their results would be one file.
    """
    often = Counter(scan.name.casefold() for scan in scans if not scan.skipped)
    used: set[str] = set()
    for scan in scans:
        name = scan.name
        if often[name.casefold()] > 1 and scan.path.is_file():
            suffix = scan.path.name[len(name_without_suffix(scan.path)) :]
            name = f"{name}{suffix.replace('.', '_')}"
        unique, number = name, 1
        while unique.casefold() in used or (unique != scan.name and unique.casefold() in often):
            number += 1
            unique = f"{name}_{number}"
        used.add(unique.casefold())
        yield replace(scan, name=unique)
