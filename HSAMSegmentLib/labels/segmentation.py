"""A segmentation as plain data: a label map, its geometry, and its labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.labels.label_set import LabelSet


@dataclass(frozen=True)
class Segmentation:
    """A label map on the grid of a volume.

    Attributes:
        array: uint8 label values, shape (k, j, i).
        geometry: exactly the geometry of the source volume.
        labels: meaning of the values.
        name: for files and nodes.
        notes: sentences on what reading had to change ("segments overlap in 12 voxels ...").
    """

    array: np.ndarray
    geometry: Geometry
    labels: LabelSet
    name: str = "segmentation"
    notes: tuple[str, ...] = ()
