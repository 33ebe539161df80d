"""The course of a training as a picture: loss and Dice over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from HSAMSegmentLib.output import atomic_output
from HSAMSegmentLib.training.request import TeachMetrics


def write_plot(history: Sequence[TeachMetrics], path: Path, *, title: str = "", overwrite: bool = False) -> None:
    """Draw the loss, and Dice per label where there is validation, to a PNG file.

    Raises:
        OutputError: if the file exists or cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    steps = [item.step for item in history]
    left.plot(steps, [item.loss for item in history], color="black")
    left.set(xlabel="step", ylabel="loss (running mean)", title=title or "Training")
    for name in sorted({name for item in history for name in item.dice}):
        right.plot(steps, [item.dice.get(name, float("nan")) for item in history], marker=".", label=name)
    best = [item.step for item in history if item.best]
    if best and any(item.dice for item in history):
        right.axvline(best[-1], color="gray", linestyle=":", label="kept")
        right.legend(fontsize="small")
    right.set(xlabel="step", ylabel="Dice on validation slices", ylim=(0, 1), title="Validation")
    with atomic_output(path, overwrite=overwrite) as stream:
        figure.savefig(stream, format="png", dpi=120)
