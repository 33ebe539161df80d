"""Distances between the surfaces of two masks, on any spacing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree


@dataclass(frozen=True)
class SurfaceDistances:
    """Distance of every surface voxel of one mask to the nearest surface voxel of the other.

    Attributes:
        forward: from each surface voxel of the prediction to the reference's surface, float64 [n].
        backward: from each surface voxel of the reference to the prediction's surface, float64 [m].
    """

    forward: np.ndarray
    backward: np.ndarray

    def hd95(self) -> float:
        """95 % Hausdorff distance: the larger of both directed 95th percentiles (as MONAI and DeepMind compute it)."""
        return float(max(np.percentile(self.forward, 95), np.percentile(self.backward, 95)))

    def pooled_hd95(self) -> float:
        """95th percentile of both directions' distances together, as the papers' evaluation scripts compute it."""
        return float(np.percentile(np.concatenate((self.forward, self.backward)), 95))

    def asd(self) -> float:
        """Average symmetric surface distance: the mean over all surface voxels of both masks."""
        return float(np.concatenate((self.forward, self.backward)).mean())

    def directed_asd(self) -> float:
        """Mean distance of the prediction's surface voxels to the reference, without the way back."""
        return float(self.forward.mean())


def surface_voxels(mask: np.ndarray, axes: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    """Find the surface of a mask: its voxels that have a face in common with a voxel outside of it.

    What lies beyond the edge of the array counts as outside, so an organ cut by the field of view has a surface there.

    Args:
        mask: bool [k, j, i].
        axes: along which neighbors are looked at; leave out the axis of a volume that is one slice thick, or all of
            the organ would be surface.

    Returns:
        bool [k, j, i], True on the surface.
    """
    inner = mask.copy()
    for axis in axes:
        ahead = np.moveaxis(inner, axis, 0)
        line = np.moveaxis(mask, axis, 0)
        ahead[0] = False
        ahead[-1] = False
        ahead[1:] &= line[:-1]
        ahead[:-1] &= line[1:]
    array: np.ndarray = mask & ~inner
    return array


def distances_between(prediction: np.ndarray, reference: np.ndarray) -> SurfaceDistances:
    """Exact nearest distances between two sets of surface points, both ways.

    A k-d tree of the points gives the same numbers as a distance transform of the whole box, to rounding, and is
    several times as fast where the surfaces are close, which is the usual case.

    Args:
        prediction: float64 [n, 3], n > 0.
        reference: float64 [m, 3], m > 0.
    """
    prediction_tree = cKDTree(prediction, balanced_tree=False)
    reference_tree = cKDTree(reference, balanced_tree=False)
    return SurfaceDistances(
        forward=reference_tree.query(prediction)[0],
        backward=prediction_tree.query(reference)[0],
    )
