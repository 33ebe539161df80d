"""A volume read along more than one plane: where that makes sense, and the logits of all planes put together.

A network that looks along sagittal slices sees what one that looks along axial slices misses, and the other way round,
so the mean of their logits is better than either. What it is worth is in Docs/teaching.md.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from HSAMSegmentLib.inference.arrays import to_array, to_tensor
from HSAMSegmentLib.inference.regions import StackRegion
from HSAMSegmentLib.volumes.geometry import Geometry
from HSAMSegmentLib.volumes.orientation import SliceFrame, slice_frame
from HSAMSegmentLib.volumes.rules import SliceRule

_THICKEST = 2.0
"""Slices further apart than this many pixels are too thick to be read across."""

_FEWEST_SLICES = 16
"""Fewer are too flat to be read across: one cell of the encoder."""


def readable_across(geometry: Geometry, rule: SliceRule) -> bool:
    """Whether the slices of a volume lie so close, and are so many, that other planes can be read as well."""
    frame = slice_frame(geometry, rule.plane)
    pixel_mm = max(*frame.pixel_spacing_mm, rule.pixel_spacing_mm)
    return frame.stack_shape[0] >= _FEWEST_SLICES and frame.slice_spacing_mm <= _THICKEST * pixel_mm


def is_other_plane(plane: str, geometry: Geometry, rule: SliceRule) -> bool:
    """Whether slices of this plane are others than the ones that the rule cuts."""
    return slice_frame(geometry, plane).axes[0] != slice_frame(geometry, rule.plane).axes[0]


def too_thick(geometry: Geometry, rule: SliceRule) -> str:
    """The sentence for a volume that is not `readable_across`."""
    frame = slice_frame(geometry, rule.plane)
    return (
        f"This model reads volumes along several planes, but this one has {frame.stack_shape[0]} slices, "
        f"{frame.slice_spacing_mm:.1f} mm apart: it was read along one plane only."
    )


class PlaneLogits:
    """Sum of the logits of other planes, on the voxels of the volume.

    Kept in half precision and relative to the background's, so a voxel takes two bytes for each structure; memory is
    used for the region alone.
    """

    def __init__(self, shape: tuple[int, int, int], num_classes: int) -> None:
        """Start with no plane.

        Args:
            shape: (k, j, i) of the volume's array.
            num_classes: foreground classes K.
        """
        self._sums = np.zeros((num_classes, *shape), dtype=np.float16)
        self.planes = 0

    def add(self, logits: Tensor, frame: SliceFrame, region: StackRegion, first: int) -> None:
        """Add what a plane's network says.

        Args:
            logits: [n, K + 1, rows, cols] of consecutive slices, cut to the region's window.
            frame: of the plane.
            region: of the plane.
            first: index of the first of these slices.
        """
        lead = to_array((logits[:, 1:] - logits[:, :1]).float())
        for sums, values in zip(self._sums, lead.swapaxes(0, 1)):
            _cut(sums, frame, region, first, len(lead))[...] += values

    def mean_with(self, logits: Tensor, frame: SliceFrame, region: StackRegion, first: int) -> Tensor:
        """Mean of the first plane's logits [n, K + 1, rows, cols] and those of all others; arguments as in `add`.

        All channels of a voxel may be shifted together, which neither labels nor probabilities notice.
        """
        others = np.stack([_cut(sums, frame, region, first, len(logits)) for sums in self._sums], axis=1)
        mean = logits.clone()
        mean[:, 1:] += to_tensor(others.astype(np.float32), logits.device)
        return mean / (1 + self.planes)


def _cut(sums: np.ndarray, frame: SliceFrame, region: StackRegion, first: int, count: int) -> np.ndarray:
    window = region.window
    return frame.to_stack(sums)[
        first : first + count, window.row_start : window.row_stop, window.column_start : window.column_stop
    ]
