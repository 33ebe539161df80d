"""Boxes and positions between a volume's own IJK and its stack of slices."""

from __future__ import annotations

from dataclasses import dataclass

from HSAMSegmentLib.images.orientation import SliceFrame
from HSAMSegmentLib.preprocess.network_input import SliceWindow


@dataclass(frozen=True)
class StackRegion:
    """A box of a stack: slices first..last - 1 and a window of each of them."""

    first: int
    last: int
    window: SliceWindow


def stack_region(roi: tuple[int, int, int, int, int, int], frame: SliceFrame) -> StackRegion:
    """Where a voxel box (i0, i1, j0, j1, k0, k1), upper bounds excluded, lies in the stack."""
    bounds = []
    for array_axis, backwards, count in zip(frame.axes, frame.reversed_axes, frame.stack_shape):
        voxel_axis = 2 - array_axis
        low, high = roi[2 * voxel_axis], roi[2 * voxel_axis + 1]
        bounds.append((count - high, count - low) if backwards else (low, high))
    (first, last), rows, columns = bounds
    return StackRegion(first, last, SliceWindow(*rows, *columns))


def voxel_axis_name(frame: SliceFrame) -> str:
    """The voxel axis that the slices follow: "i", "j" or "k"."""
    return "kji"[frame.axes[0]]
