"""Rules for a model's input, its output, and the planes of multi-planar inference. No torch here.

The rules are plain data, stored in the manifest of a bundle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.orientation import slice_frame
from HSAMSegmentLib.runtime.serialization import pair

STAGES = ("both", "last")
View = tuple[float, float]
PLAIN_VIEW: View = (0.0, 1.0)
MOST_VIEWS = 16
_SCALES = (0.25, 4.0)
_WIDEST_MM = 20.0

_THICKEST = 2.0
"""Slices further apart than this many pixels are too thick for other planes."""

_FEWEST_SLICES = 16
"""Fewer slices are too few for other planes: one cell of the encoder."""


@dataclass(frozen=True)
class IntensityRule:
    """How intensities are scaled to 0 to 1.

    Attributes:
        kind: "window" (clip to `window_hu`), "percentile" (clip to percentiles of the volume, excluding voxels of its
            lowest value, the padding) or "slice_minmax" (minimum and maximum of each slice, as in AutoSAM).
        window_hu: lower and upper bound in Hounsfield units for "window".
        percentiles: lower and upper percentile for "percentile".
    """

    kind: str = "percentile"
    window_hu: tuple[float, float] = (-125.0, 275.0)
    percentiles: tuple[float, float] = (0.5, 99.5)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> IntensityRule:
        """Read what `to_json` wrote."""
        return cls(
            kind=str(data["kind"]),
            window_hu=pair(float(v) for v in data["window_hu"]),
            percentiles=pair(float(v) for v in data["percentiles"]),
        )


@dataclass(frozen=True)
class SliceRule:
    """How a volume is sliced and framed for the network.

    Attributes:
        plane: "acquisition" (stacked along the axis with the largest spacing; axial when isotropic), "axial",
            "coronal" or "sagittal".
        framing: "stretch" (resize the slice to S x S regardless of its aspect, as H-SAM, SAMed and AutoSAM do) or
            "spacing" (resample to `pixel_spacing_mm`, then center on the S x S input with zero padding, or cover with
            overlapping S x S tiles if it is larger).
        pixel_spacing_mm: for "spacing".
        context: "repeat" (the slice in all three channels) or "adjacent" (the slices `context_mm` before and after it,
            rounded to whole slices and at least one, in the first and the last channel; edge slices repeat).
        context_mm: for "adjacent".
    """

    plane: str = "acquisition"
    framing: str = "stretch"
    pixel_spacing_mm: float = 1.0
    context: str = "repeat"
    context_mm: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SliceRule:
        """Read what `to_json` wrote."""
        return cls(**data)


@dataclass(frozen=True)
class PredictionRule:
    """How the network's output is turned into labels.

    Attributes:
        stages: "both" (the mean of all decoding stages' logits) or "last".
        views: test-time augmentation views as (rotation in degrees counterclockwise, scale); the logits of all views
            are averaged. (0, 1) is the plain input.
        neighbors_mm: standard deviation of the Gaussian for through-plane smoothing of logits; 0 for none.
    """

    stages: str = "both"
    views: tuple[View, ...] = (PLAIN_VIEW,)
    neighbors_mm: float = 0.0

    def __post_init__(self) -> None:
        if self.stages not in STAGES:
            raise ValueError(f"the stages to read are one of {', '.join(STAGES)}, not {self.stages!r}")
        if not 1 <= len(self.views) <= MOST_VIEWS:
            raise ValueError(f"a slice has 1 to {MOST_VIEWS} views, not {len(self.views)}")
        for degrees, scale in self.views:
            if not (math.isfinite(degrees) and _SCALES[0] <= scale <= _SCALES[1]):
                raise ValueError(f"a view by {degrees} degrees at scale {scale} cannot be made")
        if not 0.0 <= self.neighbors_mm <= _WIDEST_MM:
            raise ValueError(f"slices are averaged over 0 to {_WIDEST_MM:g} mm, not {self.neighbors_mm}")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "stages": self.stages,
            "views": [list(view) for view in self.views],
            "neighbors_mm": self.neighbors_mm,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PredictionRule:
        """Read what `to_json` wrote."""
        views = tuple((float(degrees), float(scale)) for degrees, scale in data.get("views", (PLAIN_VIEW,)))
        return cls(data.get("stages", "both"), views, float(data.get("neighbors_mm", 0.0)))


def readable_across(geometry: Geometry, rule: SliceRule) -> bool:
    """Whether the slices of a volume are close and numerous enough for multi-planar inference."""
    frame = slice_frame(geometry, rule.plane)
    pixel_mm = max(*frame.pixel_spacing_mm, rule.pixel_spacing_mm)
    return frame.stack_shape[0] >= _FEWEST_SLICES and frame.slice_spacing_mm <= _THICKEST * pixel_mm


def is_other_plane(plane: str, geometry: Geometry, rule: SliceRule) -> bool:
    """Whether this plane differs from the one that the rule slices."""
    return slice_frame(geometry, plane).axes[0] != slice_frame(geometry, rule.plane).axes[0]


def too_thick(geometry: Geometry, rule: SliceRule) -> str:
    """The warning for a volume that is not `readable_across`."""
    frame = slice_frame(geometry, rule.plane)
    return (
        f"This model reads volumes along several planes, but this one has {frame.stack_shape[0]} slices, "
        f"{frame.slice_spacing_mm:.1f} mm apart: it was read along one plane only."
    )


def other_plane(grids: Sequence[Geometry], rule: SliceRule) -> str:
    """The plane of a second network for some volumes: sagittal, or axial if the first is sagittal.

    Returns:
        "" if slices are too thick or too few for other planes, or if the volumes have no other plane in common.
    """
    if not all(readable_across(grid, rule) for grid in grids):
        return ""
    return next((p for p in ("sagittal", "axial") if all(is_other_plane(p, grid, rule) for grid in grids)), "")
