"""Measure what the structures of the training scans were like."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.preprocess.intensity import intensity_scaler
from HSAMSegmentLib.preprocess.rules import IntensityRule
from HSAMSegmentLib.training.data.cases import Case
from HSAMSegmentLib.weights.training_ranges import StructureRange

_DEVIATIONS = 2.5
_LEAST_LOG_VOLUME_SD = 0.3
_LEAST_INTENSITY_SD = 0.03
_UNKNOWN_LOG_VOLUME_SD = 0.5
_UNKNOWN_INTENSITY_SD = 0.06


def training_ranges(cases: Iterable[Case], labels: LabelSet, intensity: IntensityRule) -> dict[str, StructureRange]:
    """Range of volume and intensity of each structure, 2.5 standard deviations around the mean.

    Volumes are taken as log-normal, from structures that lie whole in a scan that is labeled in full. With a single
    scan the deviations are assumed: a factor of 1.6 in volume, 0.06 in intensity.

    Args:
        cases: the training scans, with the values of `labels`.
        labels: the structures.
        intensity: how the model scales intensities.

    Returns:
        Name of the structure to its range; structures that occur in no scan are left out.
    """
    logs: dict[str, list[float]] = {label.name: [] for label in labels}
    means: dict[str, list[float]] = {label.name: [] for label in labels}
    for case in cases:
        scale = intensity_scaler(case.volume.array, intensity)
        for label in labels:
            mask = case.labels == label.value
            if not mask.any():
                continue
            means[label.name].append(float(scale(case.volume.array[mask][None]).mean(dtype=np.float64)))
            if case.labeled is None and not _touches_border(mask):
                volume_ml = np.count_nonzero(mask) * case.volume.geometry.voxel_volume_ml
                logs[label.name].append(float(np.log(volume_ml)))
    return {
        name: StructureRange(_volume_range(logs[name]), _intensity_range(means[name])) for name in means if means[name]
    }


def _touches_border(mask: np.ndarray) -> bool:
    """Whether a structure may go on outside of the scan."""
    sides = (np.moveaxis(mask, axis, 0)[end] for axis in range(3) for end in (0, -1))
    return any(bool(side.any()) for side in sides)


def _volume_range(logs: Sequence[float]) -> tuple[float, float] | None:
    if not logs:
        return None
    deviation = max(float(np.std(logs, ddof=1)), _LEAST_LOG_VOLUME_SD) if len(logs) > 1 else _UNKNOWN_LOG_VOLUME_SD
    low, high = (np.exp(np.mean(logs) + sign * _DEVIATIONS * deviation) for sign in (-1, 1))
    return round(float(low), 3), round(float(high), 3)


def _intensity_range(means: Sequence[float]) -> tuple[float, float]:
    deviation = max(float(np.std(means, ddof=1)), _LEAST_INTENSITY_SD) if len(means) > 1 else _UNKNOWN_INTENSITY_SD
    low, high = (float(np.mean(means)) + sign * _DEVIATIONS * deviation for sign in (-1, 1))
    return round(max(0.0, low), 4), round(min(1.0, high), 4)
