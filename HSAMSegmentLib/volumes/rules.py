"""How a model wants its input: intensities and slices. Plain data that travels in the manifest of a bundle."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class IntensityRule:
    """How grey values become the range 0 to 1.

    Attributes:
        kind: "window" (clip to `window_hu`), "percentile" (clip to percentiles of the volume's voxels, those of its
            lowest value left out: the padding) or "slice_minmax" (minimum and maximum of each slice, as AutoSAM does).
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
            window_hu=tuple(float(v) for v in data["window_hu"]),
            percentiles=tuple(float(v) for v in data["percentiles"]),
        )


@dataclass(frozen=True)
class SliceRule:
    """How a volume is cut and framed for the network.

    Attributes:
        plane: "acquisition" (along the axis of the largest spacing; axial when isotropic), "axial", "coronal" or
            "sagittal".
        framing: "stretch" (the slice is resized to S x S whatever its aspect, as H-SAM, SAMed and AutoSAM do) or
            "spacing" (resampled to `pixel_spacing_mm`, then centered on the S x S input with zero padding, or covered
            by overlapping S x S tiles where it is larger).
        pixel_spacing_mm: for "spacing".
        context: "repeat" (the slice in all three channels) or "adjacent" (the slices `context_mm` before and after
            it, rounded to whole slices and at least one, in the first and the last channel; edge slices repeat).
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
