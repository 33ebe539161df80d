"""Plausibility: how well a result matches the model's training data, from values that are already computed.

Three scores between 0 and 1, each a mean over the structures that were found:

*Confidence*: relative to what is usual for the model (see `confidence`).
*Volume*: 1 within the range of the training scans, halved for each factor of two outside it. A structure that touches
the border of the scan may be cut off, so it is never too small.
*Intensity*: 1 if the structure's mean intensity is within the range of the training scans, falling to 0 at a distance
of 0.25. Intensities are those after the model's scaling, 0 to 1.

*Plausibility* is their product. A low value means that the scan may not suit the model; a high one does not mean that
the result is correct.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from HSAMSegmentLib.inference.result import LabelResult, Plausibility
from HSAMSegmentLib.weights.manifest import StructureRange

DOUBTFUL = 0.5
"""Scores below this trigger a warning."""
_INTENSITY_TOLERANCE = 0.25
_MOST_REASONS = 3
_CLEARLY_OUTSIDE = 0.7


@dataclass(frozen=True)
class Observation:
    """One structure found in a result.

    Attributes:
        result: volume, confidence, bounding box.
        intensity: mean scaled intensity.
        is_cut: whether it touches the border of the segmented box.
    """

    result: LabelResult
    intensity: float
    is_cut: bool


def observe(
    labels: Sequence[LabelResult],
    label_map: np.ndarray,
    intensities: np.ndarray,
    scale: Callable[[np.ndarray], np.ndarray],
    box: Sequence[int],
) -> list[Observation]:
    """Observe every structure that was found.

    Args:
        labels: label results.
        label_map: uint8 (k, j, i).
        intensities: the scan (k, j, i).
        scale: the model's intensity scaling.
        box: the segmented box (i0, i1, j0, j1, k0, k1).
    """
    return [
        Observation(item, _mean_intensity(item, label_map, intensities, scale), _is_cut(item.bounding_box, box))
        for item in labels
        if item.bounding_box is not None
    ]


def plausibility(observations: Sequence[Observation], ranges: Mapping[str, StructureRange]) -> Plausibility | None:
    """Score how well the structures match the training scans.

    Args:
        observations: the structures that were found.
        ranges: ranges of the training scans by structure name.

    Returns:
        None if no structure was found or none has a known range.
    """
    known = [(item, ranges[item.result.label.name]) for item in observations if item.result.label.name in ranges]
    if not known:
        return None
    scores = [(_confidence(item, usual), _volume(item, usual), _intensity(item, usual)) for item, usual in known]
    means = np.mean(scores, axis=0)
    reasons = [
        reason
        for (item, usual), (_, volume, intensity) in zip(known, scores)
        for reason in _reasons(item, usual, volume, intensity)
    ]
    confidence, volume, intensity = (float(mean) for mean in means)
    return Plausibility(float(np.prod(means)), confidence, volume, intensity, tuple(reasons[:_MOST_REASONS]))


def plausibility_warning(found: Plausibility | None, model: str) -> str:
    """Return a warning for an implausible result, else ""."""
    if found is None or found.score >= DOUBTFUL:
        return ""
    why = f": {'; '.join(found.reasons)}" if found.reasons else ": the model is less certain than usual"
    return (
        f"This scan may not suit {model} (plausibility {found.score:.2f} of 1){why}. Check every structure, or use "
        "another model."
    )


def _mean_intensity(
    item: LabelResult, label_map: np.ndarray, intensities: np.ndarray, scale: Callable[[np.ndarray], np.ndarray]
) -> float:
    i0, i1, j0, j1, k0, k1 = item.bounding_box or (0,) * 6
    box = (slice(k0, k1), slice(j0, j1), slice(i0, i1))
    values = intensities[box][label_map[box] == item.label.value]
    return float(np.mean(scale(values[None, :]), dtype=np.float64))


def _is_cut(found: tuple[int, ...] | None, box: Sequence[int]) -> bool:
    return found is not None and any(
        found[2 * axis] <= box[2 * axis] or found[2 * axis + 1] >= box[2 * axis + 1] for axis in range(3)
    )


def _confidence(item: Observation, usual: StructureRange) -> float:
    if usual.confidence is None or item.result.confidence is None:
        return 1.0
    return min(1.0, item.result.confidence / usual.confidence)


def _volume(item: Observation, usual: StructureRange) -> float:
    if usual.volume_ml is None:
        return 1.0
    (low, high), volume = usual.volume_ml, item.result.volume_ml
    if volume > high:
        return high / volume
    return 1.0 if item.is_cut else min(1.0, volume / low)


def _intensity(item: Observation, usual: StructureRange) -> float:
    low, high = usual.intensity
    outside = max(low - item.intensity, item.intensity - high, 0.0)
    return max(0.0, 1.0 - outside / _INTENSITY_TOLERANCE)


def _reasons(item: Observation, usual: StructureRange, volume: float, intensity: float) -> list[str]:
    name, reasons = item.result.label.name, []
    if volume < _CLEARLY_OUTSIDE and usual.volume_ml is not None:
        low, high = usual.volume_ml
        reasons.append(f"{name} has {item.result.volume_ml:.3g} mL, {low:.3g} to {high:.3g} mL in the training scans")
    if intensity < _CLEARLY_OUTSIDE:
        side = "darker" if item.intensity < usual.intensity[0] else "brighter"
        reasons.append(f"{name} is {side} than in the training scans")
    return reasons
