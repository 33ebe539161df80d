"""Closed surfaces of structures in LPS mm: marching cubes of scikit-image, smoothed by trimesh without shrinking.

Coordinates are LPS, as DICOM, ITK and Slicer's files of models have them: x grows to the patient's left, y to the back,
z to the head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.labels.label_set import Label
from HSAMSegmentLib.labels.segmentation import Segmentation

if TYPE_CHECKING:
    import trimesh

SURFACES_HINT = "Surfaces need scikit-image and trimesh; install them with: pip install 'hsamsegment[surfaces]'"
SMOOTHING_STEPS = 20
_LAMBDA, _NU = 0.5, 0.53


@dataclass(frozen=True)
class Surface:
    """The surface of one structure.

    Attributes:
        label: name and color of the structure.
        mesh: closed triangle mesh in LPS mm, its normals pointing outward.
    """

    label: Label
    mesh: trimesh.Trimesh


def surfaces_of(segmentation: Segmentation, *, smoothing_steps: int = SMOOTHING_STEPS) -> Iterator[Surface]:
    """The surface of each structure that has voxels, in the order of the labels.

    Args:
        segmentation: the labels.
        smoothing_steps: iterations of Taubin's smoothing (SIGGRAPH 1995), which keeps the volume; 0 for the bare
            boundary of the voxels, cut at their corners.

    Raises:
        RequestError: if scikit-image or trimesh is not installed.
    """
    require_surface_libraries()
    from scipy import ndimage

    boxes = ndimage.find_objects(segmentation.array)
    for label in segmentation.labels:
        box = boxes[label.value - 1] if label.value <= len(boxes) else None
        if box is not None:
            mask = segmentation.array[box] == label.value
            start = np.array([part.start for part in reversed(box)], dtype=float)
            yield Surface(label, _mesh(mask, start, segmentation.geometry.ijk_to_lps, smoothing_steps))


def require_surface_libraries() -> None:
    """RequestError, which tells how to install them, if scikit-image or trimesh is missing."""
    if any(find_spec(name) is None for name in ("skimage", "trimesh")):
        raise RequestError(SURFACES_HINT)


def _mesh(mask: np.ndarray, start: np.ndarray, ijk_to_lps: np.ndarray, steps: int) -> trimesh.Trimesh:
    """The surface of a mask (k, j, i) whose first voxel has the indices `start` (i, j, k)."""
    import trimesh
    from skimage.measure import marching_cubes

    vertices, faces, _, _ = marching_cubes(np.pad(mask, 1).astype(np.float32), 0.5)
    indices = vertices[:, ::-1] - 1.0 + start
    points = indices @ ijk_to_lps[:3, :3].T + ijk_to_lps[:3, 3]
    mesh = trimesh.Trimesh(points, faces, process=False)
    if steps:
        trimesh.smoothing.filter_taubin(mesh, lamb=_LAMBDA, nu=_NU, iterations=steps)
    if mesh.volume < 0:
        mesh.invert()
    return mesh
