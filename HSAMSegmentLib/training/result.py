"""The result of a training: kept weights, manifest, metrics, and the ranges of its structures."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

import HSAMSegmentLib
from HSAMSegmentLib.images.orientation import slice_frame
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.preprocess.intensity import intensity_scaler
from HSAMSegmentLib.preprocess.rules import IntensityRule
from HSAMSegmentLib.training.data.cases import Case
from HSAMSegmentLib.training.data.sampling import sources_of
from HSAMSegmentLib.training.finetune_state import FinetuneState
from HSAMSegmentLib.training.request import FinetuneResult, ValidationMetrics
from HSAMSegmentLib.weights.loading import LoadedModel
from HSAMSegmentLib.weights.manifest import Manifest, StructureRange

_DEVIATIONS = 2.5
_LEAST_LOG_VOLUME_SD = 0.3
_LEAST_INTENSITY_SD = 0.03
_UNKNOWN_LOG_VOLUME_SD = 0.5
_UNKNOWN_INTENSITY_SD = 0.06

_SUFFIX = ".safetensors"


def training_ranges(cases: Iterable[Case], labels: LabelSet, intensity: IntensityRule) -> dict[str, StructureRange]:
    """Range of volume and intensity of each structure, 2.5 standard deviations around the mean.

    Volumes are taken as log-normal, from structures that lie completely inside a fully labeled scan. With a single
    scan the deviations are assumed: a factor of 1.6 in volume, 0.06 in intensity.

    Args:
        cases: the training scans, with the values of `labels`.
        labels: the structures.
        intensity: how the model scales intensities.

    Returns:
        Range by structure name; structures that occur in no scan are left out.
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
    """Whether a structure may extend beyond the scan."""
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


def make_result(run: FinetuneState, stopped: str) -> FinetuneResult:
    """Collect the result of a training; nothing is written.

    Args:
        run: the training, with weights to keep.
        stopped: why it ended, see `FinetuneResult`.
    """
    trainer, path = run.trainer, run.request.output
    if _is_still_the_start(trainer.history):
        run.note(["It did not get better than its starting model on the held-out slices: it keeps its weights."])
    network = trainer.load_best()
    second = run.second_plane
    if second is not None and _kept_planes(run):
        network.other_planes[second.plane] = second.trainer.average.network
    return FinetuneResult(
        path=path,
        dice=kept_dice(trainer.history),
        validated_on=sources_of(run.validator.sets),
        steps=run.steps,
        epochs=run.steps / run.setup.steps_per_epoch,
        seconds=run.budget.seconds,
        stopped=stopped,
        notes=tuple(run.notes),
        history=tuple(trainer.history),
        advice=tuple(run.advice),
        model=LoadedModel(network.cpu(), _manifest(run, stopped), path),
    )


def kept_dice(history: Sequence[ValidationMetrics]) -> dict[str, float]:
    """Dice per label of the weights kept last."""
    return next((dict(item.dice) for item in reversed(history) if item.kept), {})


def _is_still_the_start(history: Sequence[ValidationMetrics]) -> bool:
    """Whether the starting model was validated and never surpassed."""
    return bool(history) and history[0].step == 0 and not any(item.kept for item in history[1:])


def _kept_planes(run: FinetuneState) -> tuple[str, ...]:
    """Planes of the model in addition to the first."""
    is_kept = run.comparison is not None and run.comparison.is_better
    return (run.second_plane.plane,) if run.second_plane is not None and is_kept else ()


def _manifest(run: FinetuneState, stopped: str) -> Manifest:
    request, setup, recipe = run.request, run.setup, run.setup.recipe
    names = ", ".join(label.name for label in setup.labels)
    extents = [max(slice_frame(case.volume.geometry).field_of_view_mm) for case in setup.training]
    return Manifest(
        id=safe_id(request.output),
        title=request.title or f"Fine-tuned: {names}",
        modality=recipe.modality,
        architecture=replace(recipe.architecture, planes=_kept_planes(run)),
        encoder_source=setup.initial.encoder_source,
        intensity=recipe.intensity,
        slices=recipe.slices,
        prediction=recipe.prediction,
        labels=setup.labels,
        license=setup.initial.license,
        description=f"Fine-tuned on {len(setup.training)} labeled scan(s): {names}. Use it on similar scans only.",
        field_of_view_mm=(round(0.5 * min(extents), 1), round(2.0 * max(extents), 1)),
        training=_training_facts(run, stopped),
        metrics={"validation": _validation_facts(run)},
        training_ranges=training_ranges(setup.training, setup.labels, recipe.intensity),
    )


def _validation_facts(run: FinetuneState) -> dict[str, Any]:
    """Dice of the first network, and the comparison with both networks if there is a second plane."""
    facts: dict[str, Any] = {"on": sources_of(run.validator.sets), "dice": kept_dice(run.trainer.history)}
    if run.second_plane is not None and run.comparison is not None:
        facts["other_plane"] = {"name": run.second_plane.plane, **asdict(run.comparison)}
    return facts


def _training_facts(run: FinetuneState, stopped: str) -> dict[str, Any]:
    """Data hashes, settings, and versions."""
    request, setup, recipe = run.request, run.setup, run.setup.recipe
    return {
        "cases": [{"name": case.volume.name, **case.hashes} for case in setup.training],
        "validation": [{"name": case.volume.name, **case.hashes} for case in setup.validation],
        "held_out": [
            {"name": item.bank.name, "on": item.source, "slices": len(item.slices)} for item in run.validator.sets
        ],
        "settings": {
            "adaptation": recipe.adaptation,
            "augment": recipe.augment.to_json(),
            "augment_first": recipe.augment_first and recipe.augment_first.to_json(),
            "rate": recipe.rate,
            "encoder_share": recipe.encoder_share,
            "schedule": recipe.schedule,
            "batch_size": request.batch_size,
            "minutes": run.budget.minutes,
            "epochs": request.epochs,
            "seed": request.seed,
            "device": str(run.device),
        },
        "start": setup.initial.facts,
        "steps": run.steps,
        "kept_step": run.trainer.best_step,
        "seconds": round(run.budget.seconds, 1),
        "stopped": stopped,
        "versions": versions(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def versions() -> dict[str, str]:
    """Versions of the software that computed the weights."""
    return {
        "hsamsegment": getattr(HSAMSegmentLib, "__version__", ""),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def safe_id(output: Path) -> str:
    """Derive a model ID from a file name."""
    stem = output.name[: -len(_SUFFIX)] if output.name.endswith(_SUFFIX) else output.stem
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.") or "fine-tuned-model"
