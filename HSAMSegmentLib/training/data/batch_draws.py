"""Random numbers for the batch of all ranks, of which this process takes its part."""

from __future__ import annotations

import torch
from torch import Tensor

from HSAMSegmentLib.training import ranks


class BatchDraws:
    """Draws with the samples along the first dimension; alone exactly as torch's own functions with a generator."""

    def __init__(self, generator: torch.Generator) -> None:
        """
        Args:
            generator: in the same state on all ranks.
        """
        self.generator = generator

    def rand(self, count: int, *shape: int) -> Tensor:
        """Uniform in [0, 1) for `count` samples of this rank."""
        return ranks.part_of(torch.rand(count * ranks.world_size(), *shape, generator=self.generator))

    def randn(self, count: int, *shape: int) -> Tensor:
        """Normal for `count` samples of this rank."""
        return ranks.part_of(torch.randn(count * ranks.world_size(), *shape, generator=self.generator))

    def whole_rand(self, count: int) -> Tensor:
        """Uniform in [0, 1) for the samples of all ranks."""
        return torch.rand(count * ranks.world_size(), generator=self.generator)

    def one(self) -> Tensor:
        """One number in [0, 1) for all samples, [1]."""
        return torch.rand(1, generator=self.generator)
