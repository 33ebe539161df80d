"""Optimizer, learning rate over time, precision: shared by all trainings."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

WEIGHT_DECAY = 0.05
LOWEST_RATE_SHARE = 0.02
GRADIENT_LIMIT = 2.0


def make_optimizer(network: nn.Module, rate: float, *, encoder_share: float = 1.0) -> torch.optim.AdamW:
    """AdamW on all trained parameters, without decay on biases and norms.

    Args:
        network: with `requires_grad` set.
        rate: highest learning rate.
        encoder_share: factor on the rate of tensors below `encoder.`; each group remembers its own as "share".
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
    """Give every group this rate times its own share."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)


def cosine_share(progress: float) -> float:
    """Share of the highest learning rate at a part (0 to 1) of the training (Loshchilov and Hutter, ICLR 2017)."""
    return LOWEST_RATE_SHARE + (1 - LOWEST_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def mixed_precision(device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 on CUDA, which needs no scaling of gradients; float32 elsewhere."""
    return torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()
