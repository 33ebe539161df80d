"""Segmentations with layers, whose structures may overlap as in Slicer, and merging layers into one label map."""

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
        layer: number of its layer, None without voxels.
        value: its value in the layer.
    """

    label: Label
    layer: int | None
    value: int

    @property
    def name(self) -> str:
        """Display name."""
        return self.label.name


@dataclass(frozen=True)
class LayeredSegmentation:
    """A segmentation whose structures may overlap.

    Attributes:
        name: name of the segmentation.
        layers: label arrays (k, j, i), each with its grid in one coordinate system.
        structures: the structures of the layers.
        grid: grid of the scan that it was drawn on, if known.
    """

    name: str
    layers: tuple[tuple[np.ndarray, Geometry], ...]
    structures: tuple[LayeredStructure, ...]
    grid: Geometry | None = None


@dataclass(frozen=True)
class LayerInput:
    """A label array in a file, with its own grid.

    Attributes:
        array_file: `.npy` file of the label values (k, j, i).
        geometry: its grid, in the coordinate system of the scan.
    """

    array_file: str
    geometry: Geometry


def painted(
    shape: tuple[int, ...], mask_of: Callable[[int], np.ndarray], values: Sequence[int]
) -> tuple[np.ndarray, int]:
    """Merge masks that may overlap into one label map: the smaller one stays visible, as a lesion in its organ.

    Args:
        shape: shape of the label map.
        mask_of: returns the mask at a position in `values`, bool [*shape]; called twice each, to hold one at a time.
        values: label value of each mask, 1 to 255.

    Returns:
        uint8 [*shape], and the number of voxels painted over.
    """
    sizes = [int(np.count_nonzero(mask_of(index))) for index in range(len(values))]
    array, overlapping = np.zeros(shape, dtype=np.uint8), 0
    for index in sorted(range(len(values)), key=lambda index: -sizes[index]):
        mask = mask_of(index)
        overlapping += int(np.count_nonzero(array[mask]))
        array[mask] = values[index]
    return array, overlapping
