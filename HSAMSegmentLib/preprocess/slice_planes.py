"""Where it makes sense to read a volume along other planes than its slices' own. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.orientation import slice_frame
from HSAMSegmentLib.preprocess.rules import SliceRule

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


def other_plane(grids: Sequence[Geometry], rule: SliceRule) -> str:
    """The plane of a second network for some volumes: sagittal, or axial where the first looks along sagittal slices.

    Returns:
        "" where slices are too thick or too few to be read across, or where the volumes have no other plane in common.
    """
    if not all(readable_across(grid, rule) for grid in grids):
        return ""
    return next((p for p in ("sagittal", "axial") if all(is_other_plane(p, grid, rule) for grid in grids)), "")
