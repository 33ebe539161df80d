"""Export a training state to bundles with manifests, evaluated on the validation scans."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from HSAMSegmentLib.errors import TrainingError
from HSAMSegmentLib.evaluation.metrics import Comparison, compare
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.terminology import label_set_of
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.runtime.disk import sha256_of
from HSAMSegmentLib.training.loop.checkpointer import load_state
from HSAMSegmentLib.training.result import training_ranges, versions
from HSAMSegmentLib.weights.loading import LoadedModel, load_model, save_model
from HSAMSegmentLib.weights.manifest import EncoderSource, Manifest, StructureRange
from recipes.builtin_tasks import TASKS, BuiltinTask, dataset_cases
from recipes.task_data import case_of_part, parts_of
from recipes.train_builtin import LAST_STAGE_WEIGHT, build_networks

logger = logging.getLogger(__name__)

_METRICS = ("dice", "jaccard", "hd95", "asd")


def averaged_networks(state_file: Path, tasks: Sequence[BuiltinTask] = TASKS) -> tuple[nn.ModuleDict, dict[str, Any]]:
    """The averaged networks of a training state, rounded to the float16 of bundles, and the state itself."""
    state = load_state(state_file)
    networks = build_networks(tasks)
    networks.load_state_dict(state["average"])
    for parameter in networks.parameters():
        parameter.data = parameter.data.half().float()
    return networks.eval(), state


@dataclass(frozen=True)
class ValidationReport:
    """Quality of a model on its validation scans.

    Attributes:
        metrics: "validation", and "validation_FOLDER" for each additional data set: means and the lowest Dice per
            structure, and Dice per scan.
        confidences: mean confidence of each structure.
    """

    metrics: dict[str, dict[str, Any]]
    confidences: dict[str, float]


def evaluate(model: LoadedModel, task: BuiltinTask, data_folder: Path, *, device: str = "cpu") -> ValidationReport:
    """Segment the validation scans with default options, and compare with their labels."""
    segmenter = Segmenter(model, device=device, options=SegmentOptions(threads=torch.get_num_threads()))
    metrics: dict[str, dict[str, Any]] = {}
    confidences: dict[str, list[float]] = {name: [] for name in task.labels}
    for part in parts_of(task):
        found: dict[str, Comparison] = {}
        for entry in dataset_cases(data_folder / part.folder):
            if entry.id not in task.validation:
                continue
            case = case_of_part(entry, part, task)
            truth = Segmentation(case.labels, case.volume.geometry, model.manifest.labels, entry.id)
            result = segmenter.segment(case.volume)
            found[entry.id] = compare(result.segmentation, truth)
            for item in result.found:
                confidences[item.label.name].append(float(item.confidence or 0.0))
        metrics["validation" if not metrics else f"validation_{part.folder}"] = _summary(task, found)
    means = {name: _rounded(float(np.mean(values))) for name, values in confidences.items() if values}
    return ValidationReport(metrics, means)


def ranges_of_task(
    task: BuiltinTask, labels: LabelSet, confidences: Mapping[str, float], data_folder: Path
) -> dict[str, StructureRange]:
    """Range of each structure in the training scans; any intensity if training used random contrast."""
    cases = (
        case_of_part(entry, part, task)
        for part in parts_of(task)
        for entry in dataset_cases(data_folder / part.folder)
        if entry.id not in task.validation
    )
    ranges = training_ranges(cases, labels, task.intensity)
    any_intensity = {} if task.contrast is None else {"intensity": (0.0, 1.0)}
    return {name: replace(item, confidence=confidences.get(name), **any_intensity) for name, item in ranges.items()}


def _summary(task: BuiltinTask, found: dict[str, Comparison]) -> dict[str, Any]:
    structures: dict[str, dict[str, float]] = {}
    for number, name in enumerate(task.labels):
        scores = [comparison.scores[number] for comparison in found.values()]
        row = {}
        for metric in _METRICS:
            values = [getattr(score, metric) for score in scores if getattr(score, metric) is not None]
            unit = "_mm" if metric in ("hd95", "asd") else ""
            row[metric + unit] = _rounded(float(np.mean(values)))
        row["lowest_dice"] = _rounded(min(score.dice for score in scores if score.dice is not None))
        structures[name] = row
    return {
        "on": "held-out scans, default options of segmenting",
        "scans": list(found),
        "mean_dice": _rounded(float(np.mean([row["dice"] for row in structures.values()]))),
        "structures": structures,
        "dice_per_scan": {
            name: [None if score.dice is None else _rounded(score.dice) for score in comparison.scores]
            for name, comparison in found.items()
        },
    }


def _rounded(value: float) -> float:
    return round(float(value), 4)


def manifest_of_task(
    task: BuiltinTask, encoder: EncoderSource, state: dict[str, Any], hashes: dict[str, dict[str, str]]
) -> Manifest:
    """The manifest of a built-in model, without metrics."""
    return Manifest(
        id=task.id,
        title=task.title,
        modality=task.modality,
        architecture=task.architecture,
        encoder_source=encoder,
        intensity=task.intensity,
        slices=task.slices,
        prediction=task.prediction,
        labels=label_set_of(dict(enumerate(task.labels, start=1))),
        license=task.license,
        description=f"{task.description} {task.weak_points}",
        citation=task.citation,
        field_of_view_mm=task.field_of_view_mm,
        training=_training_facts(task, state, hashes),
    )


def _training_facts(task: BuiltinTask, state: dict[str, Any], hashes: dict[str, dict[str, str]]) -> dict[str, Any]:
    return {
        "script": "Scripts/train_builtin.py",
        "data": ", ".join(part.folder for part in parts_of(task)),
        "scans_taught": sorted(_trained_scans(task, state, hashes)),
        "scans_held_out": list(task.validation),
        "hashes": hashes,
        "steps": state["steps"],
        "minutes": round(state["seconds"] / 60.0, 1),
        "settings": {
            "batch_size": task.batch_size,
            "train_size": task.train_size,
            "augment": task.augment.to_json(),
            "dice_weight": task.dice_weight,
            "dice_smoothing": task.dice_smoothing,
            "last_stage_weight": LAST_STAGE_WEIGHT,
            "jointly_with": [name for name in state.get("taught", ()) if name != task.id],
        },
        "versions": versions(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def _trained_scans(task: BuiltinTask, state: dict[str, Any], hashes: dict[str, dict[str, str]]) -> list[str]:
    """IDs of the training scans; states without them used the split of the task."""
    known: dict[str, list[str]] = state.get("taught", {})
    return known.get(task.id, [name for name in hashes if name not in task.validation])


def export(
    state_file: Path,
    data_folder: Path,
    models_folder: Path,
    *,
    tasks: Sequence[BuiltinTask] = TASKS,
    device: str = "cpu",
    is_evaluated: bool = True,
    note: str = "",
    report: Callable[[str], None] = logger.info,
) -> dict[str, dict[str, Any]]:
    """Write the bundles: the first one holds the encoder, and the others refer to it by hash.

    Args:
        state_file: training state of `BuiltinTraining`.
        data_folder: folder with the data sets.
        models_folder: folder of the bundles; existing ones are replaced.
        tasks: the tasks that were trained.
        device: device to evaluate on.
        is_evaluated: whether to evaluate; bundles without metrics are for experiments.
        note: a sentence on the training for the manifest.
        report: called with a line per model.

    Returns:
        Metrics by model ID.

    Raises:
        TrainingError: if a validation scan is among the training scans.
    """
    networks, state = averaged_networks(state_file, tasks)
    encoder, metrics = EncoderSource(included=True), {}
    if is_evaluated and any(set(_trained_scans(task, state, {})) & set(task.validation) for task in tasks):
        raise TrainingError(
            "This state was trained on validation scans, so the validation would say nothing. Train it without them."
        )
    for task in tasks:
        path = models_folder / f"{task.id}.safetensors"
        manifest = manifest_of_task(task, encoder, state, _hashes(task, data_folder))
        manifest = replace(manifest, training={**manifest.training, "note": note})
        network = cast(SegmentationNetwork, networks[task.id])
        if is_evaluated:
            evaluation = evaluate(LoadedModel(network, manifest, path), task, data_folder, device=device)
            ranges = ranges_of_task(task, manifest.labels, evaluation.confidences, data_folder)
            manifest = replace(manifest, metrics=evaluation.metrics, training_ranges=ranges)
            metrics[task.id] = evaluation.metrics
        save_model(path, network.cpu(), manifest, overwrite=True, dtype="float16")
        if encoder.included:
            encoder = EncoderSource(False, task.id, sha256_of(path))
        report(f"{task.id}: {metrics.get(task.id, 'not evaluated')}")
    return metrics


def _hashes(task: BuiltinTask, data_folder: Path) -> dict[str, dict[str, str]]:
    """SHA-256 of the files of every scan."""
    return {
        entry.id: {"image": sha256_of(entry.image), "labels": sha256_of(entry.label)}
        for part in parts_of(task)
        for entry in dataset_cases(data_folder / part.folder)
    }


def measure_ranges(task: BuiltinTask, data_folder: Path, models_folder: Path, *, device: str = "cpu") -> Path:
    """Evaluate a finished bundle again, and add the ranges of its training scans. The weights are unchanged.

    Returns:
        The bundle.
    """
    path = models_folder / f"{task.id}.safetensors"
    model = load_model(path)
    evaluation = evaluate(model, task, data_folder, device=device)
    ranges = ranges_of_task(task, model.manifest.labels, evaluation.confidences, data_folder)
    manifest = replace(model.manifest, metrics=evaluation.metrics, training_ranges=ranges)
    return save_model(path, model.network.cpu(), manifest, overwrite=True, dtype="float16")
