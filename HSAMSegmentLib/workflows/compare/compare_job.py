"""The job that compares two segmentations of a scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from HSAMSegmentLib.evaluation.layered_comparison import LayeredComparison, compare_layered
from HSAMSegmentLib.evaluation.metrics import LabelScore
from HSAMSegmentLib.labels.layered_segmentation import LayeredSegmentation
from HSAMSegmentLib.runtime.serialization import triple
from HSAMSegmentLib.workflows.compare.compare_request import (
    ABSENT,
    BOTH,
    NOT_COMPARED,
    ONLY_FIRST,
    ONLY_SECOND,
    CompareOutcome,
    CompareRequest,
    SideInput,
    StructureScore,
)
from HSAMSegmentLib.workflows.context import Context

_METRICS = ("dice", "hd95", "asd")
_STATES = {"both": BOTH, "missed": ONLY_SECOND, "false alarm": ONLY_FIRST, "absent": ABSENT}


def run(request: CompareRequest, context: Context) -> CompareOutcome:
    """Compare two segmentations; the label map of the disagreement is written to `request.output_folder`.

    Raises:
        RequestError: if there is nothing to compare.
        VolumeError: if the two are not in the same place.
    """
    sides = _opened(request.first), _opened(request.second)
    compared = compare_layered(*sides, request.pairs, progress=context.progress, cancel=context.cancel)
    label_file = Path(request.output_folder) / "disagreement.npy"
    np.save(label_file, compared.disagreement)
    return _outcome(compared, label_file)


def _opened(side: SideInput) -> LayeredSegmentation:
    return LayeredSegmentation(
        name=side.name,
        layers=tuple((np.load(layer.array_file, mmap_mode="r"), layer.geometry) for layer in side.layers),
        structures=side.structures,
        grid=side.grid,
    )


def _outcome(compared: LayeredComparison, label_file: Path) -> CompareOutcome:
    comparison = compared.comparison
    scores = [_score(*item, compared) for item in zip(comparison.scores, compared.worst_ijk)]
    scores += [StructureScore(name, NOT_COMPARED, first_ml=volume) for name, volume in compared.not_compared]
    return CompareOutcome(
        first_name=comparison.prediction_name,
        second_name=comparison.reference_name,
        scores=tuple(scores),
        mean={metric: comparison.mean(metric) for metric in _METRICS},
        counted={metric: comparison.counted(metric) for metric in _METRICS},
        notes=comparison.notes,
        geometry=compared.geometry,
        label_file=str(label_file),
    )


def _score(score: LabelScore, place: tuple[int, int, int] | None, compared: LayeredComparison) -> StructureScore:
    ras = None if place is None else compared.geometry.ijk_to_ras @ [*place, 1.0]
    return StructureScore(
        name=score.name,
        state=_STATES[score.state],
        dice=score.dice,
        hd95_mm=score.hd95,
        asd_mm=score.asd,
        first_ml=score.prediction_ml,
        second_ml=score.reference_ml,
        worst_dice=None if score.worst_slice is None else score.slice_dice[score.worst_slice],
        worst_ras=None if ras is None else triple(float(value) for value in ras[:3]),
    )
