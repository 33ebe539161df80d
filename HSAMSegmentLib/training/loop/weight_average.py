"""Exponential moving average of weights, which is validated and kept."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """The average of the weights; the first updates count more, so that short trainings forget their start."""

    def __init__(self, network: nn.Module, *, decay: float = 0.998) -> None:
        """Copy the network; frozen weights are shared with it.

        Args:
            network: what is trained.
            decay: weight of the past in each update once enough updates have passed.
        """
        frozen = {id(parameter): parameter for parameter in network.parameters() if not parameter.requires_grad}
        self.network: Any = copy.deepcopy(network, memo=frozen).eval()
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move towards the network's weights; buffers are copied."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for mine, theirs in zip(self.network.parameters(), network.parameters()):
            if theirs.requires_grad:
                mine.lerp_(theirs, 1 - decay)
        for my_buffer, their_buffer in zip(self.network.buffers(), network.buffers()):
            my_buffer.copy_(their_buffer)
