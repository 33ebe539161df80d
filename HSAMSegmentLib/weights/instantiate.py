"""Build a network from its architecture and tensors, without computing initial values that are overwritten."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.models.specification import Architecture
from HSAMSegmentLib.weights.bundle import require_fit


def filled_network(
    architecture: Architecture, collect: Callable[[SegmentationNetwork], Mapping[str, Tensor]], *, file: str
) -> SegmentationNetwork:
    """Build a network with exactly these tensors, in evaluation mode.

    It is first built without memory (on the meta device), so that mismatches are found before anything large is
    allocated, and a large encoder is not initialized for nothing.

    Args:
        architecture: the architecture.
        collect: called with the network without memory, returns its tensors by network name; floating-point ones of any
            precision become float32. They are copied, so that their file may be closed.
        file: name of the source of the tensors in messages.

    Raises:
        CheckpointError: naming what is missing, unexpected or of another shape, or what cannot be built.
    """
    try:
        with torch.device("meta"):
            network = build_network(architecture)
    except (RuntimeError, OverflowError) as error:
        raise CheckpointError(f"The network that {file} describes cannot be built ({error}).") from error
    tensors = collect(network)
    require_fit(tensors, network.state_dict(), file=file, network="the network that its description asks for")
    if _has_hidden_buffers(network):
        network = build_network(architecture)
        network.load_state_dict(dict(tensors))
        return network.eval()
    trainable = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    network.load_state_dict({name: _own_copy(tensor) for name, tensor in tensors.items()}, assign=True)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trainable[name])
    return network.eval()


def _has_hidden_buffers(network: SegmentationNetwork) -> bool:
    """Whether the network computes tensors at construction that are in no file."""
    saved = network.state_dict()
    return any(name not in saved for name, _ in network.named_buffers())


def _own_copy(tensor: Tensor) -> Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to(dtype, copy=True).contiguous()
