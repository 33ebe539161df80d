"""The end of a training: the bundle with its manifest, the report, the plot."""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import HSAMSegmentLib
from HSAMSegmentLib.images.orientation import slice_frame
from HSAMSegmentLib.runtime.atomic_files import atomic_output
from HSAMSegmentLib.training.loop.checkpointing import state_path
from HSAMSegmentLib.training.loop.validator import names_of
from HSAMSegmentLib.training.request import TeachMetrics, TeachResult
from HSAMSegmentLib.training.training_plot import write_plot
from HSAMSegmentLib.weights.loading import save_model
from HSAMSegmentLib.weights.manifest import Manifest

if TYPE_CHECKING:
    from HSAMSegmentLib.models.interface import SegmentationNetwork
    from HSAMSegmentLib.training.finetune import TeachJob

_SUFFIX = ".safetensors"


def finish(job: TeachJob) -> TeachResult:
    """Write everything and tell.

    Raises:
        OutputError: if the bundle cannot be written; the training state is kept, so `resume` can try again.
    """
    request, learner = job.request, job.learner
    if did_not_beat_its_start(job):
        job.notes.append("It did not get better than its starting model on the held-out slices: it keeps its weights.")
    network = with_other_plane(job, learner.load_best()).cpu()
    path = save_model(request.output, network, manifest_of(job), overwrite=request.overwrite, dtype="float16")
    if job.stopped != "cancelled":
        state_path(request.output).unlink(missing_ok=True)
    result = TeachResult(
        path=path,
        dice=kept_dice(job),
        validated_on=validated_on(job),
        steps=job.steps,
        epochs=job.steps / job.steps_per_epoch,
        seconds=job.budget.seconds,
        stopped=job.stopped,
        notes=tuple(job.notes),
        history=tuple(learner.history),
        advice=tuple(job.advice),
    )
    if request.report is not None:
        write_report(result, manifest_of(job), request.report, overwrite=request.overwrite)
    if request.plot is not None:
        write_plot(
            learner.history,
            request.plot,
            title=manifest_of(job).title,
            validated_on=result.validated_on,
            overwrite=request.overwrite,
        )
    return result


def with_other_plane(job: TeachJob, network: SegmentationNetwork) -> SegmentationNetwork:
    """The first plane's network, with that of the other one where it is kept."""
    for plane in kept_planes(job):
        network.other_planes[plane] = job.other.learner.average.network
    return network


def kept_planes(job: TeachJob) -> tuple[str, ...]:
    """Planes other than the first that the model reads."""
    return (job.other.plane,) if job.comparison is not None and job.comparison.is_better else ()


def did_not_beat_its_start(job: TeachJob) -> bool:
    """Whether the starting model was judged, and no later state was better on the same slices."""
    history = job.learner.history
    return bool(history) and history[0].step == 0 and not any(item.best for item in history[1:])


def kept_dice(job: TeachJob) -> dict[str, float]:
    """Dice per label of the state that is kept."""
    for item in reversed(job.learner.history):
        if item.best:
            return dict(item.dice)
    return {}


def validated_on(job: TeachJob) -> str:
    """What the Dice was measured on, in words."""
    return names_of(job.looks.held)


def manifest_of(job: TeachJob) -> Manifest:
    """What the bundle says about itself."""
    request, setup = job.request, job.setup
    names = ", ".join(label.name for label in setup.labels)
    extents = [max(slice_frame(case.volume.geometry).field_of_view_mm) for case in setup.training]
    return Manifest(
        id=safe_id(request.output),
        title=request.title or f"Taught: {names}",
        modality=setup.plan.modality,
        architecture=replace(setup.plan.architecture, planes=kept_planes(job)),
        encoder_source=setup.start.encoder_source,
        intensity=setup.plan.intensity,
        slices=setup.plan.slices,
        prediction=setup.plan.prediction,
        labels=setup.labels,
        license=setup.start.license,
        description=f"Taught from {len(setup.training)} labelled scan(s): {names}. It knows scans like these only.",
        field_of_view_mm=(round(0.5 * min(extents), 1), round(2.0 * max(extents), 1)),
        training=training_facts(job),
        metrics={"validation": {"on": validated_on(job), "dice": kept_dice(job), **_on_planes(job)}},
    )


def _on_planes(job: TeachJob) -> dict[str, Any]:
    """What a second plane was found to be worth; the Dice of all held-out slices is the first plane's alone."""
    return {} if job.comparison is None else {"other_plane": {"name": job.other.plane, **asdict(job.comparison)}}


def training_facts(job: TeachJob) -> dict[str, Any]:
    """Data hashes, settings and versions."""
    request, setup = job.request, job.setup
    return {
        "cases": [{"name": case.volume.name, **case.hashes} for case in setup.training],
        "validation": [{"name": case.volume.name, **case.hashes} for case in setup.validation],
        "held_out": [
            {"name": item.bank.name, "on": item.source, "slices": len(item.slices)} for item in job.looks.held
        ],
        "settings": {
            "adaptation": setup.plan.adaptation,
            "augment": setup.plan.augment.to_json(),
            "augment_first": setup.plan.augment_first and setup.plan.augment_first.to_json(),
            "rate": setup.plan.rate,
            "encoder_share": setup.plan.encoder_share,
            "schedule": setup.plan.schedule,
            "batch_size": request.batch_size,
            "minutes": job.budget.minutes,
            "epochs": request.epochs,
            "seed": request.seed,
            "device": str(job.device),
        },
        "start": setup.start.facts,
        "steps": job.steps,
        "kept_step": job.learner.best_step,
        "seconds": round(job.budget.seconds, 1),
        "stopped": job.stopped,
        "versions": versions(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def versions() -> dict[str, str]:
    """Of what computed the weights."""
    return {
        "hsamsegment": getattr(HSAMSegmentLib, "__version__", ""),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def write_report(result: TeachResult, manifest: Manifest, path: Path, *, overwrite: bool = False) -> None:
    """Everything about a training as JSON.

    Raises:
        OutputError: if the file exists or cannot be written.
    """
    data: Mapping[str, Any] = {
        **asdict(result),
        "path": str(result.path),
        "history": [_without_nan(item) for item in result.history],
        "manifest": json.loads(manifest.to_json()),
    }
    with atomic_output(path, overwrite=overwrite) as stream:
        stream.write(json.dumps(data, indent=1, ensure_ascii=False).encode())


def _without_nan(look: TeachMetrics) -> dict[str, Any]:
    """A look as JSON values: there is no loss before the first step."""
    return {**asdict(look), "loss": look.loss if math.isfinite(look.loss) else None}


def safe_id(output: Path) -> str:
    """An id for a model from the name of its file."""
    stem = output.name[: -len(_SUFFIX)] if output.name.endswith(_SUFFIX) else output.stem
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.") or "taught-model"
