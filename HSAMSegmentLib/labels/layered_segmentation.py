"""Segmentations whose structures lie on layers and may overlap, as Slicer keeps them; and layers in one label map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.labels.label_set import Label


@dataclass(frozen=True)
class LayeredStructure:
    """One structure of a segmentation.

    Attributes:
        label: name, color and code.
        layer: number of its layer, None if it has no voxels.
        value: its value there.
    """

    label: Label
    layer: int | None
    value: int

    @property
    def name(self) -> str:
        """As a user reads it."""
        return self.label.name


@dataclass(frozen=True)
class LayeredSegmentation:
    """A segmentation whose structures may overlap.

    Attributes:
        name: of the segmentation.
        layers: label arrays (k, j, i), each with its grid in one coordinate system.
        structures: what the values mean.
        grid: of the scan that it was drawn on, if that is known.
    """

    name: str
    layers: tuple[tuple[np.ndarray, Geometry], ...]
    structures: tuple[LayeredStructure, ...]
    grid: Geometry | None = None


@dataclass(frozen=True)
class LayerInput:
    """One label array in a file, on a grid of its own.

    Attributes:
        array_file: `.npy` file of the label values (k, j, i).
        geometry: its grid, in the coordinate system of the scan.
    """

    array_file: str
    geometry: Geometry


def painted(
    shape: tuple[int, ...], mask_of: Callable[[int], np.ndarray], values: Sequence[int]
) -> tuple[np.ndarray, int]:
    """One label map of masks that may overlap: the smaller one stays visible, as a lesion in its organ.

    Args:
        shape: of the label map.
        mask_of: the mask of a position in `values`, bool [*shape]; called twice for each, so that one is in memory.
        values: what each mask becomes, 1 to 255.

    Returns:
        uint8 [*shape], and how often a voxel was painted over.
    """
    sizes = [int(np.count_nonzero(mask_of(index))) for index in range(len(values))]
    array, overlapping = np.zeros(shape, dtype=np.uint8), 0
    for index in sorted(range(len(values)), key=lambda index: -sizes[index]):
        mask = mask_of(index)
        overlapping += int(np.count_nonzero(array[mask]))
        array[mask] = values[index]
    return array, overlapping
