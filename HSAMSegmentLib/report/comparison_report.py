"""Serialize a comparison as plain JSON values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from HSAMSegmentLib.evaluation.metrics import AXIS_NAMES, Comparison, LabelScore

METRICS = ("dice", "jaccard", "hd95", "asd")

_DEFINITIONS = {
    "ours": {
        "hd95": "larger of both directed 95th percentiles of the distances between boundary voxels",
        "asd": "mean distance over the boundary voxels of both",
        "empty": "empty in both: null and in no mean; empty in one: Dice and Jaccard 0, distances null",
    },
    "hsam": {
        "hd95": "95th percentile of both directions' distances between boundary voxels together, in voxels",
        "asd": "mean distance of the prediction's boundary voxels to the reference's, in voxels",
        "empty": "predicted without reference: Dice and Jaccard 1, distances 0; missed or absent: all 0; all counted",
    },
}


def comparison_to_json(comparison: Comparison) -> dict[str, Any]:
    """All metrics of a comparison with their definitions; None if a metric does not exist."""
    return {
        "prediction": comparison.prediction_name,
        "reference": comparison.reference_name,
        "convention": comparison.convention,
        "unit": comparison.unit,
        "definitions": _DEFINITIONS[comparison.convention],
        "slice_axis": AXIS_NAMES[comparison.slice_axis],
        "first_slice": comparison.first_slice,
        "structures": [_score_to_json(score) for score in comparison.scores],
        "mean": {metric: comparison.mean(metric) for metric in METRICS},
        "counted": {metric: comparison.counted(metric) for metric in METRICS},
        "notes": list(comparison.notes),
    }


def _score_to_json(score: LabelScore) -> dict[str, Any]:
    return {
        **asdict(score),
        "volume_difference_ml": score.volume_difference_ml,
        "volume_difference_percent": score.volume_difference_percent,
    }
