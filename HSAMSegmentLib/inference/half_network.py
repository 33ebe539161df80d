"""A network's copy in half precision, so that a CPU does not convert and fold the weights anew for every batch."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from HSAMSegmentLib.models.lora import AdaptedQkv

Network = TypeVar("Network", bound=nn.Module)

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
"""Their few parameters stay as they are: they are summed up in float32 and cost nothing."""


def half_network(network: Network, dtype: torch.dtype) -> Network:
    """Copy a network, with its parameters in half precision and its adapters folded in; run it under autocast.

    The networks of other planes are left out. Buffers (positions, tables of indices, running means) and the parameters
    of norms keep their precision.

    Args:
        network: a segmentation network, or a part of one; stays as it is.
        dtype: bfloat16 or float16.
    """
    replaced: dict[int, object] = {}
    if hasattr(network, "other_planes"):
        # Other planes have predictors, and copies, of their own.
        replaced[id(network.other_planes)] = nn.ModuleDict()
    for module in network.modules():
        if isinstance(module, AdaptedQkv):
            folded = module.merged()
            replaced[id(module)] = folded
            folded.to(dtype)
        elif not isinstance(module, _NORMS):
            for parameter in module.parameters(recurse=False):
                replaced[id(parameter)] = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
    # deepcopy takes what its memo names instead of copying it, so no second copy in float32 is ever made.
    return copy.deepcopy(network, replaced)
