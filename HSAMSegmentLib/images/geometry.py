"""The geometry of a volume in patient space: size, spacing, origin and direction in ITK's convention (LPS, mm)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GRID_TOLERANCE_VOXELS = 0.01


@dataclass(frozen=True)
class Geometry:
    """The grid of a volume in ITK's convention.

    Attributes:
        size: voxels along i, j, k (an array of this grid has the shape (k, j, i)).
        spacing_mm: distance between voxel centers along i, j, k.
        origin_mm: LPS position of the center of voxel (0, 0, 0).
        direction: row-major 3 x 3 matrix; column n is the unit LPS vector of axis n. May be left-handed.
    """

    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (k, j, i) of an array on this grid."""
        return (self.size[2], self.size[1], self.size[0])

    @property
    def direction_matrix(self) -> np.ndarray:
        """3 x 3 float64 matrix whose columns are the LPS directions of i, j and k."""
        return np.asarray(self.direction, dtype=np.float64).reshape(3, 3)

    @property
    def ijk_to_lps(self) -> np.ndarray:
        """4 x 4 float64 matrix from voxel indices (i, j, k, 1) to LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.direction_matrix * np.asarray(self.spacing_mm)
        matrix[:3, 3] = self.origin_mm
        return matrix

    @property
    def ijk_to_ras(self) -> np.ndarray:
        """4 x 4 float64 matrix from voxel indices (i, j, k, 1) to RAS mm, Slicer's convention."""
        array: np.ndarray = np.diag([-1.0, -1.0, 1.0, 1.0]) @ self.ijk_to_lps
        return array

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in milliliters; correct for sheared grids (a tilted gantry), too."""
        return float(abs(np.linalg.det(self.ijk_to_lps[:3, :3]))) / 1000.0


def same_grid(first: Geometry, second: Geometry, tolerance_voxels: float = GRID_TOLERANCE_VOXELS) -> bool:
    """Whether two grids have the same size, with corners closer than this fraction of the smallest spacing."""
    if first.size != second.size:
        return False
    ends = [(0.0, length - 1.0) for length in first.size]
    corners = np.array([[i, j, k, 1.0] for i in ends[0] for j in ends[1] for k in ends[2]]).T
    distances = np.linalg.norm(((first.ijk_to_lps - second.ijk_to_lps) @ corners)[:3], axis=0)
    return bool(distances.max() <= tolerance_voxels * min(first.spacing_mm))
