"""Read DICOM RT Structure Sets: closed planar contours, rasterized on the grid of the scan that they were drawn on.

A voxel belongs to a structure if its center is inside an odd number of its contours in that slice, so that a contour
within another one is a hole; holes cut in by keyholes work as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.io.image_files import name_without_suffix
from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.labels.layered_segmentation import painted
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.terminology import fallback_color, find_structure, unique_name

if TYPE_CHECKING:
    from pydicom import Dataset

RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
_MOST_STRUCTURES = 255
_FLAT_VOXELS = 0.5
_SAME_PLANE_VOXELS = 0.25
_ROUNDING_VOXELS = 1e-3


def read_rtstruct(path: Path, content: Dataset, grid: Geometry) -> Segmentation:
    """Read a structure set into one label map; where two structures overlap, the smaller one stays visible.

    Args:
        path: the file, for names and messages.
        content: the file, read by pydicom.
        grid: grid of the scan that the contours were drawn on.

    Raises:
        VolumeError: if there is no closed contour, or if contours are not in the slices of the scan.
    """
    regions = content.get("StructureSetROISequence", [])
    names = {int(item.ROINumber): str(item.get("ROIName", "") or "").strip() for item in regions}
    drawn = [item for item in content.get("ROIContourSequence", []) if item.get("ContourSequence")]
    if len(drawn) > _MOST_STRUCTURES:
        raise VolumeError(f'"{path.name}" has {len(drawn)} structures; {_MOST_STRUCTURES} is the most that fits.')
    masks: list[np.ndarray] = []
    labels: list[Label] = []
    notes: list[str] = []
    for number, item in enumerate(drawn, start=1):
        name = names.get(int(item.ReferencedROINumber), "") or f"Structure {number}"
        mask, left_out = _rasterized(path, name, item.ContourSequence, grid)
        masks.append(mask)
        labels.append(_label(number, name, item, [label.name for label in labels]))
        if left_out:
            notes.append(f'{left_out} contours of "{name}" are not closed (points, open lines), and were left out.')
        beyond = _beyond(item.ContourSequence, grid)
        if beyond:
            notes.append(f'{beyond} contours of "{name}" reach beyond the scan, and were cut off there.')
    if not any(mask.any() for mask in masks):
        raise VolumeError(f'"{path.name}" has no closed contour within the scan; check that both belong together.')
    array, overlap = painted(grid.shape, masks.__getitem__, [label.value for label in labels])
    if overlap:
        notes.append(f"Structures overlap in {overlap} voxels; there the smaller structure was kept.")
    return Segmentation(array, grid, LabelSet(tuple(labels)), name_without_suffix(path), tuple(notes))


def _label(number: int, name: str, item: Dataset, taken: list[str]) -> Label:
    known = find_structure(name)
    color = _color(item, known.color if known else fallback_color(number))
    terms = known.terminology if known else None
    return Label(number, unique_name(name, taken, number), color, terms, known.single_piece if known else False)


def _color(item: Dataset, otherwise: tuple[float, float, float]) -> tuple[float, float, float]:
    """The display color of a structure, if the file gives a valid one."""
    stored = item.get("ROIDisplayColor")
    if not isinstance(stored, Sequence) or isinstance(stored, str) or len(stored) != 3:
        return otherwise
    red, green, blue = (min(max(float(part), 0.0), 255.0) / 255.0 for part in stored)
    return (red, green, blue)


def _rasterized(path: Path, name: str, contours: list[Dataset], grid: Geometry) -> tuple[np.ndarray, int]:
    """bool (k, j, i) of one structure, and the number of its contours that are not closed."""
    to_index = np.linalg.inv(grid.ijk_to_lps)
    drawn: list[tuple[float, np.ndarray]] = []
    left_out = 0
    for item in contours:
        if not str(item.get("ContourGeometricType", "")).upper().startswith("CLOSED"):
            left_out += 1
            continue
        points = np.array(item.ContourData, dtype=float).reshape(-1, 3)
        indices = points @ to_index[:3, :3].T + to_index[:3, 3]
        if np.ptp(indices[:, 2]) > _FLAT_VOXELS:
            raise VolumeError(
                f'The contours of "{name}" in "{path.name}" do not lie in the slices of this scan; choose the one '
                "that they were drawn on."
            )
        drawn.append((float(indices[:, 2].mean()), indices[:, :2]))
    mask = np.zeros(grid.shape, dtype=bool)
    if not drawn:
        return mask, left_out
    by_depth = _planes(drawn)
    depths = np.array(sorted(by_depth))
    planes = {depth: _filled(by_depth[depth], grid.shape[1:]) for depth in by_depth}
    # Contours may be on every other slice, or between two: a slice takes the nearest within half their distance.
    reach = max(0.5, float(np.diff(depths).min()) / 2) if len(depths) > 1 else 0.5
    for k in range(grid.size[2]):
        nearest = float(depths[int(np.argmin(np.abs(depths - k)))])
        if abs(nearest - k) <= reach + _ROUNDING_VOXELS:
            mask[k] = planes[nearest]
    return mask, left_out


def _beyond(contours: list[Dataset], grid: Geometry) -> int:
    """Number of closed contours with a point outside the grid."""
    to_index = np.linalg.inv(grid.ijk_to_lps)
    count = 0
    for item in contours:
        if str(item.get("ContourGeometricType", "")).upper().startswith("CLOSED"):
            points = np.array(item.ContourData, dtype=float).reshape(-1, 3) @ to_index[:3, :3].T + to_index[:3, 3]
            count += bool(np.any(points < -1.0) or np.any(points > np.array(grid.size)))
    return count


def _planes(drawn: list[tuple[float, np.ndarray]]) -> dict[float, list[np.ndarray]]:
    """Contours by depth of their plane; depths within a quarter of a slice are one plane."""
    planes: dict[float, list[np.ndarray]] = {}
    for depth, polygon in sorted(drawn, key=lambda item: item[0]):
        known = next((other for other in planes if abs(other - depth) <= _SAME_PLANE_VOXELS), None)
        planes.setdefault(depth if known is None else known, []).append(polygon)
    return planes


def _filled(polygons: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Mask of pixel centers inside an odd number of polygons of (i, j) vertices."""
    inside = np.zeros(shape, dtype=bool)
    columns = np.arange(shape[1])
    for polygon in polygons:
        start, end = polygon, np.roll(polygon, -1, axis=0)
        low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
        first, last = max(0, int(np.ceil(low.min()))), min(shape[0] - 1, int(np.floor(high.max())))
        for row in range(first, last + 1):
            crossed = (low <= row) & (row < high)
            part = (row - start[crossed, 1]) / (end[crossed, 1] - start[crossed, 1])
            crossings = start[crossed, 0] + part * (end[crossed, 0] - start[crossed, 0])
            inside[row] ^= (np.searchsorted(np.sort(crossings), columns, side="right") % 2).astype(bool)
    return inside
