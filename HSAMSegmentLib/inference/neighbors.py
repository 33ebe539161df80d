"""Logits averaged over neighboring slices, because a network that sees slices one by one flickers between them.

The average is a Gaussian whose width is in millimeters, so it acts on thin slices and leaves thick ones as they are.
What it is worth is in Docs/teaching.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Compute = Callable[[int, int], "list[Tensor]"]
"""Logits [n, C, rows, cols] of all stages for the slices first..last - 1."""

_REACH = 3.0
"""Neighbors further away than this many standard deviations do not count."""


class NeighborMean:
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
        self._first = self._last = 0
        self._kept: list[Tensor] = []

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
        self._drop_before(begin)
        while self._last < end:
            self._append(compute(self._last, min(self._last + last - first, end)))
        weights = self._weights(first, last).to(self._kept[0])
        return [torch.tensordot(weights, stage[: end - begin], dims=1) for stage in self._kept]

    def _drop_before(self, begin: int) -> None:
        if not self._first <= begin < self._last:
            self.forget()
            self._first = self._last = begin
        self._kept = [stage[begin - self._first :] for stage in self._kept]
        self._first = begin

    def _append(self, stages: list[Tensor]) -> None:
        self._kept = [torch.cat(pair) for pair in zip(self._kept, stages)] if self._kept else list(stages)
        self._last += len(stages[0])

    def _weights(self, first: int, last: int) -> Tensor:
        """Weights [last - first, slices within reach] of the neighbors, each row with the sum 1."""
        begin, end = max(0, first - self.reach), min(self._count, last + self.reach)
        distance = torch.arange(begin, end)[None] - torch.arange(first, last)[:, None]
        weights = torch.exp(-0.5 * (distance / self._sigma) ** 2) * (distance.abs() <= self.reach)
        return weights / weights.sum(dim=1, keepdim=True)
