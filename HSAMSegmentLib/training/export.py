"""Write the files of a finished training: bundle, report, plot."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from HSAMSegmentLib.runtime.atomic_files import atomic_output
from HSAMSegmentLib.training.request import FinetuneRequest, FinetuneResult, ValidationMetrics
from HSAMSegmentLib.weights.loading import save_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_LEGEND_ROWS = 12


def write_plot(
    history: Sequence[ValidationMetrics],
    path: Path,
    *,
    title: str = "",
    validated_on: str = "",
    overwrite: bool = False,
) -> None:
    """Plot the loss, and with validation the Dice per label, to a PNG file.

    Args:
        history: the validations.
        path: path of the PNG file.
        title: title of the plot.
        validated_on: source of the validation slices, in words.
        overwrite: replace an existing file.

    Raises:
        OutputError: if the file exists or cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title or "Training", wrap=True)
    left, right = figure.subplots(1, 2)
    left.plot([item.step for item in history], [item.loss for item in history], color="black", marker=".")
    left.set(xlabel="step", ylabel="loss (running mean)")
    _draw_dice(right, history, validated_on)
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    with atomic_output(path, overwrite=overwrite) as stream:
        figure.savefig(stream, format="png", dpi=120)


def _draw_dice(axes: Axes, history: Sequence[ValidationMetrics], validated_on: str) -> None:
    steps = [item.step for item in history]
    names = list(dict.fromkeys(name for item in history for name in item.dice))
    axes.set(xlabel="step", ylabel="Dice", ylim=(0, 1), title=f"Validation on {validated_on or 'nothing'}")
    axes.title.set_fontsize("medium")
    if not names:
        axes.text(0.5, 0.5, "No validation", ha="center", va="center", transform=axes.transAxes)
        return
    for name in names:
        axes.plot(steps, [item.dice.get(name, float("nan")) for item in history], marker=".", label=name)
    best = [item.step for item in history if item.kept]
    if best:
        axes.axvline(best[-1], color="gray", linestyle=":", label="kept")
    axes.legend(fontsize="small", ncols=1 + len(names) // _LEGEND_ROWS)


def export(result: FinetuneResult, request: FinetuneRequest) -> None:
    """Write the bundle and, if requested, the report and the plot.

    Args:
        result: result with its model.
        request: names the files, and whether to replace existing ones.

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
    """Write the report of a training as JSON.

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
    """Convert to JSON values; the loss before the first step becomes null."""
    return {**metrics.to_state(), "loss": metrics.loss if math.isfinite(metrics.loss) else None}
