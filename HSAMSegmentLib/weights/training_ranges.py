"""What the structures of a model's training scans were like: the range against which a new result is checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class StructureRange:
    """One structure in the training scans.

    Attributes:
        volume_ml: plausible volume (lowest, highest) in milliliters, None if no training scan
            shows the whole structure.
        intensity: plausible mean of the scaled intensity (lowest, highest), between 0 and 1.
        confidence: usual confidence of the finished model, None if it was not measured.
    """

    volume_ml: tuple[float, float] | None
    intensity: tuple[float, float]
    confidence: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> StructureRange:
        """Read what `to_json` wrote."""
        volume, confidence = data["volume_ml"], data.get("confidence")
        return cls(
            volume_ml=None if volume is None else (float(volume[0]), float(volume[1])),
            intensity=(float(data["intensity"][0]), float(data["intensity"][1])),
            confidence=None if confidence is None else float(confidence),
        )
