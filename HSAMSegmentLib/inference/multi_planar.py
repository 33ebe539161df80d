"""The logits of all planes that a volume is read along, put together.

A network that looks along sagittal slices sees what one that looks along axial slices misses, and the other way round,
so the mean of their logits is better than either. What it is worth is in Docs/finetuning.md.
"""

from __future__ import annotations

from math import prod

import numpy as np
from torch import Tensor

from HSAMSegmentLib.images.orientation import SliceFrame
from HSAMSegmentLib.preprocess.network_input import StackRegion
from HSAMSegmentLib.runtime.devices import free_memory
from HSAMSegmentLib.runtime.disk import format_bytes
from HSAMSegmentLib.runtime.tensors import to_array, to_tensor

_LARGEST_LEAD = 1e4
"""Far beyond what changes a label, and a sum of several of them is a number in half precision."""

_MEMORY_PART = 0.5
"""Part of the free memory that the sum of logits may take."""


def too_large(roi: tuple[int, int, int, int, int, int], num_classes: int) -> str:
    """The sentence for a region whose logits would fill the memory; empty if there is room for them.

    Args:
        roi: voxel box (i0, i1, j0, j1, k0, k1), upper bounds excluded.
        num_classes: foreground classes K.
    """
    needed = 2 * num_classes * prod(roi[2 * axis + 1] - roi[2 * axis] for axis in range(3))
    free = free_memory("cpu")
    if needed <= _MEMORY_PART * free:
        return ""
    return (
        f"Reading this volume along several planes, as this model does, takes {format_bytes(needed)} of memory, and "
        f"{format_bytes(free)} are free: it was read along one plane only. Choose a region, or close other programs."
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
        lead = to_array((logits[:, 1:] - logits[:, :1]).float().clamp(-_LARGEST_LEAD, _LARGEST_LEAD))
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
