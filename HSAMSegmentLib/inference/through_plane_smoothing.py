"""Logits averaged over neighboring slices, because a network that sees slices one by one flickers between them.

The average is a Gaussian whose width is in millimeters, so it acts on thin slices and leaves thick ones as they are.
What it is worth is in Docs/finetuning.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Compute = Callable[[int, int], "list[Tensor]"]
"""Logits [n, C, rows, cols] of all stages for the slices first..last - 1."""

_REACH = 3.0
"""Neighbors further away than this many standard deviations do not count."""


@dataclass(frozen=True)
class _Part:
    """Logits of consecutive slices: of all stages, the first slice being number `first` of the stack."""

    first: int
    stages: list[Tensor]

    @property
    def last(self) -> int:
        return self.first + len(self.stages[0])


class ThroughPlaneSmoothing:
    """Averages the logits of a stack of slices, batch after batch; each slice is computed once."""

    def __init__(self, *, sigma_mm: float, slice_spacing_mm: float, count: int) -> None:
        """Find out how far the average reaches.

        Args:
            sigma_mm: standard deviation of the Gaussian across the slices, 0 for none.
            slice_spacing_mm: distance of the slices.
            count: slices of the stack.
        """
        self._sigma = sigma_mm / slice_spacing_mm if slice_spacing_mm > 0.0 else 0.0
        self.reach = min(math.floor(_REACH * self._sigma), max(count - 1, 0))
        self._count = count
        self.forget()

    def forget(self) -> None:
        """Give back the memory of what was computed."""
        self._parts: list[_Part] = []

    def stages(self, compute: Compute, first: int, last: int) -> list[Tensor]:
        """Averaged logits of the slices first..last - 1; what `compute` gives where no neighbor is within reach.

        At the ends of the stack the average is over the neighbors that are there.

        Args:
            compute: asked for at most `last - first` slices at a time, and for no slice twice while batches follow one
                another.
            first: first slice.
            last: one after the last slice.
        """
        if self.reach == 0:
            return compute(first, last)
        begin, end = max(0, first - self.reach), min(self._count, last + self.reach)
        self._parts = [part for part in self._parts if part.last > begin]
        if self._parts and self._parts[0].first > begin:
            self.forget()
        position = self._parts[-1].last if self._parts else begin
        while position < end:
            self._parts.append(_Part(position, compute(position, min(position + last - first, end))))
            position = self._parts[-1].last
        return [sum(stage) for stage in zip(*(self._share(part, first, last) for part in self._parts))]

    def _share(self, part: _Part, first: int, last: int) -> list[Tensor]:
        """What the slices of a part add to the averages of the slices first..last - 1."""
        weights = self._weights(first, last, part).to(part.stages[0])
        return [torch.tensordot(weights, stage, dims=1) for stage in part.stages]

    def _weights(self, first: int, last: int, part: _Part) -> Tensor:
        """Weights [last - first, slices of the part]; those of all slices of the stack add up to 1 in each row."""
        distance = torch.arange(self._count)[None] - torch.arange(first, last)[:, None]
        weights = torch.exp(-0.5 * (distance / self._sigma) ** 2) * (distance.abs() <= self.reach)
        return (weights / weights.sum(dim=1, keepdim=True))[:, part.first : part.last]
