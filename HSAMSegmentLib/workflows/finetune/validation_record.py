"""Metrics of one validation: an event of the job, a line of its history, a row of the chart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ValidationRecord:
    """Metrics of one validation, as stored on disk.

    Attributes:
        step: optimizer step.
        seconds: training time so far.
        loss: running mean, None before the first step.
        dice: Dice by organ.
        best: whether these weights were the best so far.
    """

    step: int
    seconds: float
    loss: float | None
    dice: dict[str, float]
    best: bool

    @property
    def mean_dice(self) -> float | None:
        """Mean over the organs; None without validation."""
        return sum(self.dice.values()) / len(self.dice) if self.dice else None
