"""Label maps in a folder of scans, told by where they lie, by their names and by their content."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.images.geometry import Geometry, same_grid
from HSAMSegmentLib.images.sitk_images import geometry_of
from HSAMSegmentLib.io.image_files import SEGMENTATION_SUFFIXES, name_without_suffix, read_image
from HSAMSegmentLib.io.nifti_files import read_nifti_header
from HSAMSegmentLib.io.quiet import quiet_libraries

_NNUNET_FOLDER = re.compile(r"labels(Tr|Ts|Va|Val)", re.IGNORECASE)
_BIDS_SUFFIX = re.compile(r"_(dseg|probseg)$", re.IGNORECASE)
_LIKELY_SUFFIX = re.compile(r"[_-](mask|seg|segmentation|labels?)$", re.IGNORECASE)
# Whole numbers that a scan of the body never has so few of.
_MOST_LABELS = 150
_HIGHEST_LABEL = 2000
_NIFTI_INTEGERS = {2, 4, 8, 256, 512, 768, 1024, 1280}
_ITK_INTEGERS = {
    sitk.sitkInt8, sitk.sitkUInt8, sitk.sitkInt16, sitk.sitkUInt16, sitk.sitkInt32, sitk.sitkUInt32,
    sitk.sitkInt64, sitk.sitkUInt64,
}  # fmt: skip


def label_maps(files: Sequence[Path], root: Path) -> dict[Path, str]:
    """Which files of one folder are label maps and not scans, each with a sentence that says why.

    Args:
        files: image files that lie in the same folder.
        root: the folder that was chosen; its own name and those above it do not matter.
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
    """Only files of one size are read, since a label map is told by the scan on its grid."""
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
        except VolumeError:  # it gets a line of its own when its turn comes
            continue
        for file, grid in grids.items():
            if file not in reasons and same_grid(grid, place):
                reasons[file] = f'"{file.name}" is a label map on the grid of "{scan.name}"; it was skipped.'
        if len(reasons) == len(grids):
            break
    return reasons


def _size_and_kind(file: Path) -> tuple[tuple[int, ...], bool]:
    """Lengths of a file's dimensions and whether it stores whole numbers; no lengths if its header cannot be read."""
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
    """The grid of a file whose voxels are few whole numbers from 0 on, mostly 0; None for any other file."""
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
    """Whether neighbors inside of what is not 0 mostly have one value, as in labels and unlike in a noisy scan."""
    left, right = array[..., :-1], array[..., 1:]
    inside = (left != 0) & (right != 0)
    pairs = np.count_nonzero(inside)
    return bool(pairs == 0 or np.count_nonzero(inside & (left == right)) >= 0.7 * pairs)
