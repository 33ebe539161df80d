"""Through-plane smoothing: average logits over neighboring slices, since 2-D networks flicker between slices.

The kernel is a Gaussian with its width in millimeters, so it smooths thin slices and leaves thick ones unchanged.
Docs/finetuning.md has the figures.
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
"""Neighbors beyond this many standard deviations are ignored."""


@dataclass(frozen=True)
class _Part:
    """Logits of all stages for consecutive slices, starting at slice `first` of the stack."""

    first: int
    stages: list[Tensor]

    @property
    def last(self) -> int:
        return self.first + len(self.stages[0])


class ThroughPlaneSmoothing:
    """Smooths the logits of a stack of slices batch by batch; each slice is computed once."""

    def __init__(self, *, sigma_mm: float, slice_spacing_mm: float, count: int) -> None:
        """Determine the reach of the kernel.

        Args:
            sigma_mm: standard deviation of the Gaussian across the slices; 0 for none.
            slice_spacing_mm: distance between slices.
            count: slices in the stack.
        """
        self._sigma = sigma_mm / slice_spacing_mm if slice_spacing_mm > 0.0 else 0.0
        self.reach = min(math.floor(_REACH * self._sigma), max(count - 1, 0))
        self._count = count
        self.forget()

    def forget(self) -> None:
        """Free the cached logits."""
        self._parts: list[_Part] = []

    def stages(self, compute: Compute, first: int, last: int) -> list[Tensor]:
        """Smoothed logits of the slices first..last - 1; the output of `compute` if no neighbor is within reach.

        At the ends of the stack the average covers the available neighbors.

        Args:
            compute: called for at most `last - first` slices at a time, and for no slice twice while batches are
                consecutive.
            first: first slice.
            last: one past the last slice.
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
        """Contribution of a part's slices to the averages of the slices first..last - 1."""
        weights = self._weights(first, last, part).to(part.stages[0])
        return [torch.tensordot(weights, stage, dims=1) for stage in part.stages]

    def _weights(self, first: int, last: int, part: _Part) -> Tensor:
        """Weights [last - first, slices of the part]; over all slices of the stack, each row sums to 1."""
        distance = torch.arange(self._count)[None] - torch.arange(first, last)[:, None]
        weights = torch.exp(-0.5 * (distance / self._sigma) ** 2) * (distance.abs() <= self.reach)
        return (weights / weights.sum(dim=1, keepdim=True))[:, part.first : part.last]
