"""Convert official `.pth` and `.pt` files: read safely, recognize by content, rename tensors, check the fit."""

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
        found: its recognized kind.
        state: tensors by official name, without wrappers and the prefix "module.".
    """

    path: Path
    found: OfficialFile
    state: Mapping[str, Tensor]


def read_official(path: Path | str) -> OfficialWeights:
    """Recognize an official file and read its tensors, without executing anything in it.

    Raises:
        CheckpointError: if it is not an official file, or is unsafe, damaged or unknown.
    """
    path = Path(path)
    found = recognize(plain_state(read_torch_header(path), path.name), path.name)
    return OfficialWeights(path, found, plain_state(_load(path), path.name))


def _load(path: Path) -> object:
    """Read the tensors; those in a plain zip are memory-mapped, so only what is used is read from disk."""
    try:
        # PyTorch 2.2 maps only a file whose name is a string.
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=_can_be_mapped(path))
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
    """Build the network of an official file and fill all of its tensors, in evaluation mode.

    Args:
        weights: the file with the head (and, for AutoSAM, the encoder).
        architecture: architecture from its manifest.
        encoder: for adapter files, the SAM checkpoint that they need.

    Raises:
        CheckpointError: if the files do not belong together, or a tensor is missing or has another shape.
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
    """The encoder's tensors of an official file, resized to the image size of `encoder`, by encoder-internal names.

    SAM's position tables are interpolated if the file was made for another size. Tensors that the encoder does not use
    (MobileSAM's file has the classifier it was distilled with) are omitted.

    Raises:
        CheckpointError: if the file holds no encoder.
    """
    if source.found.encoder is None:
        raise CheckpointError(f"{source.path.name} holds no encoder: it is {source.found.title}.")
    wanted = encoder.state_dict()
    state = {name: tensor for name, tensor in encoder_state(source.state).items() if name in wanted}
    return fit_encoder_tensors(state, encoder) if isinstance(encoder, SamEncoder) else state
