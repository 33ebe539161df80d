"""Write the files of a finished training: bundle, report, plot."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

from HSAMSegmentLib.runtime.atomic_files import atomic_output
from HSAMSegmentLib.training.request import FinetuneRequest, FinetuneResult, ValidationMetrics
from HSAMSegmentLib.training.training_plot import write_plot
from HSAMSegmentLib.weights.loading import save_model


def export(result: FinetuneResult, request: FinetuneRequest) -> None:
    """Write the bundle and, if requested, the report and the plot.

    Args:
        result: with its model.
        request: which files, and whether existing ones may be replaced.

    Raises:
        OutputError: if a file exists or cannot be written.
        ValueError: if the result has no model.
    """
    model = result.model
    if model is None:
        raise ValueError("The result has no model to export.")
    save_model(result.path, model.network, model.manifest, overwrite=request.overwrite, dtype="float16")
    if request.report is not None:
        write_report(result, request.report, overwrite=request.overwrite)
    if request.plot is not None:
        write_plot(
            result.history,
            request.plot,
            title=model.manifest.title,
            validated_on=result.validated_on,
            overwrite=request.overwrite,
        )


def write_report(result: FinetuneResult, path: Path, *, overwrite: bool = False) -> None:
    """Write everything about a training as JSON.

    Raises:
        OutputError: if the file exists or cannot be written.
    """
    data: dict[str, Any] = {item.name: getattr(result, item.name) for item in fields(result) if item.name != "model"}
    data.update(path=str(result.path), history=[_without_nan(item) for item in result.history])
    if result.model is not None:
        data["manifest"] = json.loads(result.model.manifest.to_json())
    with atomic_output(path, overwrite=overwrite) as stream:
        stream.write(json.dumps(data, indent=1, ensure_ascii=False).encode())


def _without_nan(metrics: ValidationMetrics) -> dict[str, Any]:
    """JSON values; the loss before the first step becomes null."""
    return {**metrics.to_state(), "loss": metrics.loss if math.isfinite(metrics.loss) else None}
