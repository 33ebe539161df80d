"""How well a result fits what the model was trained on: a score for the whole scan, from what is already computed.

Three observations, each a mean over the structures that were found, between 0 and 1:

*Confidence*: relative to what is usual for the model (see `confidence`).
*Volume*: 1 within the range of the training scans, halved with each factor of two outside of it. A structure that
touches the border of the scan may be cut off, so it is never too small.
*Intensity*: 1 where the mean intensity of the structure is in the range of the training scans, 0 from 0.25 outside of
it on. The range of intensities is 0 to 1 after the model's own scaling.

*Plausibility* is their product. It says that a scan may not suit the model. It cannot say that a result is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from HSAMSegmentLib.inference.result import LabelResult, Plausibility
from HSAMSegmentLib.weights.manifest import StructureRange

DOUBTFUL = 0.5
"""Scores below are worth a warning."""
_INTENSITY_TOLERANCE = 0.25
_MOST_REASONS = 3
_CLEARLY_OUTSIDE = 0.7


@dataclass(frozen=True)
class Observation:
    """One structure of a result.

    Attributes:
        result: volume, confidence, bounding box.
        intensity: mean of its scaled intensity.
        is_cut: whether it touches the border of what was segmented.
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
    """Look at the structures that were found.

    Args:
        labels: of a result.
        label_map: uint8 (k, j, i).
        intensities: the scan (k, j, i).
        scale: the model's scaling of intensities.
        box: what was segmented, (i0, i1, j0, j1, k0, k1).
    """
    return [
        Observation(item, _mean_intensity(item, label_map, intensities, scale), _is_cut(item.bounding_box, box))
        for item in labels
        if item.bounding_box is not None
    ]


def plausibility(observations: Sequence[Observation], ranges: Mapping[str, StructureRange]) -> Plausibility | None:
    """How well the structures fit the training scans.

    Args:
        observations: the structures that were found.
        ranges: of the training scans, by the name of the structure.

    Returns:
        None if nothing is known about the structures, or nothing was found.
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
    """A sentence for an implausible result, empty otherwise."""
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
