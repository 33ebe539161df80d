"""Exponential moving average of weights: what is validated and kept."""

from __future__ import annotations

import copy

import torch
from torch import nn


class WeightAverage:
    """Follows a network; early on it follows closely, so that a short training is not an average with its start."""

    def __init__(self, network: nn.Module, *, decay: float = 0.998) -> None:
        """Copy the network; what does not learn is shared with it.

        Args:
            network: what is trained.
            decay: weight of the past in each update once enough updates have passed.
        """
        frozen = {id(parameter): parameter for parameter in network.parameters() if not parameter.requires_grad}
        self.network = copy.deepcopy(network, memo=frozen).eval()
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
        for mine, theirs in zip(self.network.buffers(), network.buffers()):
            mine.copy_(theirs)
