"""Official `.pth` and `.pt` files as our networks: read safely, recognized by content, renamed, checked for fit."""

from __future__ import annotations

import logging
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.models.encoders.sam_vit import SamEncoder, fit_encoder_tensors
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.models.lora import official_adapter_keys
from HSAMSegmentLib.models.specification import Architecture
from HSAMSegmentLib.weights.convert.official_keys import map_official_keys
from HSAMSegmentLib.weights.convert.recognition import (
    OfficialFile,
    encoder_state,
    plain_state,
    recognize,
    require_encoder,
)
from HSAMSegmentLib.weights.convert.torch_header import read_torch_header
from HSAMSegmentLib.weights.file_kind import TORCH_ZIP, file_kind
from HSAMSegmentLib.weights.instantiate import filled_network

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OfficialWeights:
    """An official file in memory.

    Attributes:
        path: the file.
        found: what it is.
        state: its tensors by official name, without "module." and wrappers.
    """

    path: Path
    found: OfficialFile
    state: Mapping[str, Tensor]


def read_official(path: Path | str) -> OfficialWeights:
    """Recognize an official file and read its tensors, without running anything in it.

    Raises:
        CheckpointError: if the file is none, is unsafe, broken or unknown.
    """
    path = Path(path)
    found = recognize(plain_state(read_torch_header(path), path.name), path.name)
    return OfficialWeights(path, found, plain_state(_load(path), path.name))


def _load(path: Path) -> object:
    """Read the tensors; those of a plain zip are mapped, so that only what is used is read from the disk."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=_can_be_mapped(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path.name} is damaged or unsafe: PyTorch refuses to read it ({reason}).") from error


def _can_be_mapped(path: Path) -> bool:
    if file_kind(path) != TORCH_ZIP:
        return False
    with zipfile.ZipFile(path) as archive:
        return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())


def network_from_official(
    weights: OfficialWeights, architecture: Architecture, encoder: OfficialWeights | None = None
) -> SegmentationNetwork:
    """Build the network of an official file and fill every tensor of it, in evaluation mode.

    Args:
        weights: the file with the head (and, for AutoSAM, the encoder).
        architecture: what to build, from its manifest.
        encoder: for adapter files, the SAM checkpoint they stand on.

    Raises:
        CheckpointError: if the files do not belong together, or a tensor is missing or of another shape.
    """
    source = weights if encoder is None else encoder
    require_encoder(weights.found, source.found, file=weights.path.name, encoder_file=source.path.name)
    names = map_official_keys(weights.found.head, weights.state)
    if names.unknown:
        _log.warning("%s has tensors without a place in the network: %s", weights.path.name, ", ".join(names.unknown))

    def collect(network: SegmentationNetwork) -> dict[str, Tensor]:
        tensors = {f"head.{ours}": weights.state[official] for ours, official in names.head.items()}
        of_encoder = encoder_tensors(source, network.encoder)
        if architecture.lora_rank:
            adapters = official_adapter_keys(network.encoder)
            of_encoder.update({ours: weights.state[key] for key, ours in adapters.items() if key in weights.state})
        return {**tensors, **{f"encoder.{ours}": tensor for ours, tensor in of_encoder.items()}}

    return filled_network(architecture, collect, file=weights.path.name)


def encoder_tensors(source: OfficialWeights, encoder: nn.Module) -> dict[str, Tensor]:
    """The encoder's tensors of an official file at the image size of `encoder`, by the names inside of it.

    SAM's tables of positions are interpolated where the file was made for another size. What the encoder has no use
    for (MobileSAM's file keeps the classifier it was distilled with) is left out.

    Raises:
        CheckpointError: if the file holds no encoder.
    """
    if source.found.encoder is None:
        raise CheckpointError(f"{source.path.name} holds no encoder: it is {source.found.title}.")
    wanted = encoder.state_dict()
    state = {name: tensor for name, tensor in encoder_state(source.state).items() if name in wanted}
    return fit_encoder_tensors(state, encoder) if isinstance(encoder, SamEncoder) else state
