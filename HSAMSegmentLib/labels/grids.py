"""Compare grids, and resample label maps from one to another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import SimpleITK as sitk

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.images.geometry import GRID_TOLERANCE_VOXELS as _TOLERANCE_VOXELS
from HSAMSegmentLib.images.geometry import Geometry, same_grid
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.runtime.serialization import triple

__all__ = [
    "MOST_VOXELS",
    "grid_box",
    "label_box",
    "part_of_lattice",
    "resample_array",
    "resample_labels",
    "same_grid",
    "voxel_offset",
]

MOST_VOXELS = 2**31


def resample_labels(segmentation: Segmentation, geometry: Geometry) -> Segmentation:
    """Resample labels to another grid by nearest neighbor; unchanged if the grid is the same.

    Raises:
        VolumeError: if there are labeled voxels but none of them is on that grid.
    """
    if same_grid(segmentation.geometry, geometry):
        return replace(segmentation, geometry=geometry)
    array = resample_array(segmentation.array, segmentation.geometry, geometry)
    if segmentation.array.any() and not array.any():
        raise VolumeError(
            f'The labels of "{segmentation.name}" do not overlap with the volume; check that both are of the same scan.'
        )
    return replace(segmentation, array=array, geometry=geometry)


def voxel_offset(source: Geometry, target: Geometry) -> tuple[int, int, int] | None:
    """Index (i, j, k) of one grid's voxel (0, 0, 0) on another grid, or None if they do not share a lattice."""
    steps = np.linalg.solve(target.ijk_to_lps, source.ijk_to_lps)
    offset = np.round(steps[:3, 3])
    ends = np.array([[*corner, 1.0] for corner in np.ndindex(2, 2, 2)]) * [*source.size, 1.0]
    expected = ends[:, :3] + offset
    apart = np.abs((steps @ ends.T)[:3].T - expected).max()
    return triple(int(part) for part in offset) if apart <= _TOLERANCE_VOXELS else None


def label_box(array: np.ndarray, geometry: Geometry, lattice: Geometry) -> tuple[np.ndarray, np.ndarray] | None:
    """Bounds (i, j, k) on a lattice of the labeled voxels of an array (k, j, i), upper excluded; None if empty."""
    spans = [np.flatnonzero(array.any(axis=others)) for others in ((0, 1), (0, 2), (1, 2))]
    if spans[0].size == 0:
        return None
    return _placed_box([(span[0] - 0.5, span[-1] + 0.5) for span in spans], geometry, lattice)


def grid_box(geometry: Geometry, lattice: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (i, j, k) on a lattice of all voxels of a grid, upper excluded."""
    return _placed_box([(-0.5, length - 0.5) for length in geometry.size], geometry, lattice)


def part_of_lattice(lattice: Geometry, low: np.ndarray, high: np.ndarray) -> Geometry:
    """The grid of the voxels low..high - 1 (i, j, k) of a lattice; they may extend beyond its own size.

    Raises:
        VolumeError: if it would have more than `MOST_VOXELS`.
    """
    size = triple(int(length) for length in high - low)
    if np.prod(size, dtype=float) > MOST_VOXELS:
        raise VolumeError("The two segmentations lie too far apart to be compared. Check their places or transforms.")
    origin = (lattice.ijk_to_lps @ [*low, 1.0])[:3]
    return replace(lattice, size=size, origin_mm=triple(float(value) for value in origin))


def _placed_box(
    ends: list[tuple[float, float]], geometry: Geometry, lattice: Geometry
) -> tuple[np.ndarray, np.ndarray]:
    corners = np.array([[*(ends[axis][end] for axis, end in enumerate(corner)), 1.0] for corner in np.ndindex(2, 2, 2)])
    placed = (np.linalg.solve(lattice.ijk_to_lps, geometry.ijk_to_lps) @ corners.T)[:3]
    low = np.ceil(placed.min(axis=1) - _TOLERANCE_VOXELS).astype(int)
    return low, np.floor(placed.max(axis=1) + _TOLERANCE_VOXELS).astype(int) + 1


def resample_array(array: np.ndarray, source: Geometry, target: Geometry) -> np.ndarray:
    """Resample label values (k, j, i) to another grid; 0 outside the first one.

    Nearest neighbor from index to index, so ITK's limits on direction matrices (left-handed, sheared) do not matter.
    """
    to_source = np.linalg.solve(source.ijk_to_lps, target.ijk_to_lps)
    transform = sitk.AffineTransform(to_source[:3, :3].ravel().tolist(), to_source[:3, 3].tolist())
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    axes = np.eye(3).ravel().tolist()
    resampled = sitk.Resample(image, list(target.size), transform, sitk.sitkNearestNeighbor, [0.0] * 3, [1.0] * 3, axes)
    return sitk.GetArrayFromImage(resampled)
