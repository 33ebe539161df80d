"""Optimizer, learning rate and stage weights over time, precision, and the average of the weights.

H-SAM's rates (Cheng et al., CVPR 2024) depend on the step, AutoSAM's (Hu et al., arXiv 2306.13731) on the loss. The
exponential moving average of the weights is what is validated and kept.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

WEIGHT_DECAY = 0.05
LOWEST_RATE_SHARE = 0.02
GRADIENT_LIMIT = 2.0

POWER = 0.9
WARMUP_STEPS = 250
PLATEAU_FACTOR = 0.1
PLATEAU_PATIENCE = 10
PLATEAU_FIRST_EPOCH = 10
_PLATEAU_THRESHOLD = 1e-4


def make_optimizer(network: nn.Module, rate: float, *, encoder_share: float = 1.0) -> torch.optim.AdamW:
    """AdamW on all trained parameters, without decay on biases and norms.

    Args:
        network: with `requires_grad` set.
        rate: highest learning rate.
        encoder_share: factor on the rate of tensors below `encoder.`; each group stores its own as "share".
    """
    groups = []
    for in_encoder, share in ((True, encoder_share), (False, 1.0)):
        for decayed in (True, False):
            chosen = [
                parameter
                for name, parameter in network.named_parameters()
                if parameter.requires_grad
                and name.startswith("encoder.") == in_encoder
                and (parameter.ndim > 1) == decayed
            ]
            if chosen:
                decay = WEIGHT_DECAY if decayed else 0.0
                groups.append({"params": chosen, "weight_decay": decay, "share": share})
    try:
        return torch.optim.AdamW([dict(group) for group in groups], lr=rate, fused=True)
    except RuntimeError:  # before torch 2.4 this existed on CUDA only
        return torch.optim.AdamW(groups, lr=rate)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group to this rate times the group's share."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)


def cosine_share(progress: float) -> float:
    """Fraction of the highest learning rate at a point (0 to 1) of the training (Loshchilov and Hutter, ICLR 2017)."""
    return LOWEST_RATE_SHARE + (1 - LOWEST_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def mixed_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast to bfloat16 on CUDA, which needs no gradient scaling; float32 elsewhere."""
    return torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()


def hsam_rate(step: int, *, base_rate: float, total_steps: int, warmup_steps: int = WARMUP_STEPS) -> float:
    """Learning rate of the official H-SAM training at a step, counted from 0.

    The official loop sets the rate after a step from that step's own number, so every rate comes one step late: the
    first two steps share one, and the base rate is used twice. The decay runs over `total_steps` from the end of the
    warm-up on, so it does not quite reach zero.

    Args:
        step: number of the step.
        base_rate: the highest rate.
        total_steps: epochs times iterations per epoch.
        warmup_steps: steps of linear increase, 0 for none.
    """
    done = max(step - 1, 0)
    if done < warmup_steps:
        return base_rate * (done + 1) / warmup_steps
    return float(base_rate * (1 - (done - warmup_steps) / total_steps) ** POWER)


def hsam_rate_share(step: int, progress: float) -> float:
    """H-SAM's schedule as a fraction of the highest rate, for trainings with an estimated number of steps.

    Args:
        step: number of the step, from 0.
        progress: completed part of the training, 0 to 1. Below 1000 steps the warm-up takes a quarter of the training.
    """
    total = max(round(step / progress), 1) if progress > 0 else 1
    warmup = min(WARMUP_STEPS, total // 4) if step else WARMUP_STEPS
    return hsam_rate(step, base_rate=1.0, total_steps=total, warmup_steps=warmup)


def hsam_last_stage_weight(epoch: float) -> float:
    """Weight of the second stage's loss: 0.6 at the start, rising toward 1; the first stage gets the rest.

    Args:
        epoch: counted from 0; fractions are fine.
    """
    return float(0.6 ** (0.990**epoch))


def plateau_share(epoch_losses: Sequence[float]) -> float:
    """AutoSAM's schedule as a fraction of the base rate: divided by ten after each plateau of the loss.

    A loss counts as lower if it undercuts the lowest one so far by a ten-thousandth. As in the official training, the
    input is the loss of the last training batch of each epoch, and the first epochs do not count.

    Args:
        epoch_losses: training loss of the last batch of each finished epoch, from the first on.
    """
    share, lowest, waited = 1.0, float("inf"), 0
    for loss in epoch_losses[PLATEAU_FIRST_EPOCH:]:
        if loss < lowest * (1 - _PLATEAU_THRESHOLD):
            lowest, waited = loss, 0
            continue
        waited += 1
        if waited > PLATEAU_PATIENCE:
            share, waited = share * PLATEAU_FACTOR, 0
    return share


class WeightAverage:
    """Moving average of the weights; early updates count more, so that short trainings forget their start."""

    def __init__(self, network: nn.Module, *, decay: float = 0.998) -> None:
        """Copy the network, sharing frozen weights.

        Args:
            network: the network being trained.
            decay: weight of the past in each update, after enough updates.
        """
        frozen = {id(parameter): parameter for parameter in network.parameters() if not parameter.requires_grad}
        self.network: Any = copy.deepcopy(network, memo=frozen).eval()
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Update the average; buffers are copied."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for mine, theirs in zip(self.network.parameters(), network.parameters()):
            if theirs.requires_grad:
                mine.lerp_(theirs, 1 - decay)
        for my_buffer, their_buffer in zip(self.network.buffers(), network.buffers()):
            my_buffer.copy_(their_buffer)
