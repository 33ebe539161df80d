"""Initialize the network of a training from SAM's weights, a built-in model, or any bundle.

Tensors are matched by name and shape, classes by the names of their labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from HSAMSegmentLib.errors import CheckpointError, ModelNotFoundError
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.models.specification import EncoderSpec
from HSAMSegmentLib.training.features.adaptation import FULL
from HSAMSegmentLib.training.recipe import COMPACT, Recipe
from HSAMSegmentLib.training.request import FinetuneRequest
from HSAMSegmentLib.weights.bundle import read_manifest
from HSAMSegmentLib.weights.catalog import ENCODER
from HSAMSegmentLib.weights.convert.official_files import read_official
from HSAMSegmentLib.weights.file_kind import SAFETENSORS, file_kind
from HSAMSegmentLib.weights.loading import LoadedModel, load_model, starting_tensors
from HSAMSegmentLib.weights.manifest import EncoderSource, License, Manifest
from HSAMSegmentLib.weights.store import Store

_PER_CLASS_ENTRY = re.compile(r"(hypernetworks\w*)\.(\d+)\.")
_PER_CLASS_COLUMNS = re.compile(r"\bgate\.lift\.weight$")
"""The gate of the paper's H-SAM reads the classes side by side: one column for each of them."""

DEFAULT_START = "abdomen-mr"
SCRATCH = "scratch"
OWN_LICENSE = License("Terms of its scans", "Fine-tuned on your scans: their terms apply.", research_only=False)


@dataclass(frozen=True)
class TransferReport:
    """The origin of every tensor of a new network.

    Attributes:
        taken: tensors copied whole.
        by_class: tensors of which only the common classes were copied.
        new: tensors that keep their initial values.
        common_labels: names of the classes that both networks have.
    """

    taken: tuple[str, ...]
    by_class: tuple[str, ...]
    new: tuple[str, ...]
    common_labels: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The report in words."""
        total = len(self.taken) + len(self.by_class) + len(self.new)
        known = f" Structures it already knew: {', '.join(self.common_labels)}." if self.common_labels else ""
        return (
            f"Taken from the starting model: {len(self.taken)} of {total} tensors, {len(self.by_class)} for the common "
            f"structures only; {len(self.new)} are newly initialized.{known}"
        )


def class_map(old: LabelSet | None, new: LabelSet) -> dict[int, int]:
    """Map channels of the new network to channels of the old one, for the background and labels of the same name."""
    pairs = {0: 0}
    if old is not None:
        channels = {label.name.lower(): number for number, label in enumerate(old, start=1)}
        for number, label in enumerate(new, start=1):
            if label.name.lower() in channels:
                pairs[number] = channels[label.name.lower()]
    return pairs


@torch.no_grad()
def transfer(
    source: Mapping[str, Tensor],
    target: nn.Module,
    *,
    old_labels: LabelSet | None,
    new_labels: LabelSet,
) -> TransferReport:
    """Copy the matching tensors of another network.

    A tensor of the same name and shape is copied, unless it is per class (one row, column or MLP per channel): those
    are matched by the names of the labels. Columns of new classes start at 0, so that they do not disturb the others.

    Args:
        source: tensors of the old network by name.
        target: the new network, changed in place.
        old_labels: labels of the old network's channels 1.., None if unknown.
        new_labels: labels of the new network's channels 1...
    """
    channels = class_map(old_labels, new_labels)
    old_count, new_count = (0 if labels is None else len(labels) + 1 for labels in (old_labels, new_labels))
    taken: list[str] = []
    by_class: list[str] = []
    new: list[str] = []
    for name, tensor in target.state_dict().items():
        origin = _origin(name, channels)
        found = source.get(origin) if origin is not None else None
        if found is not None and _is_per_row(found, tensor, old_count, new_count):
            for channel, old in channels.items():
                tensor[channel] = found[old].to(tensor.dtype)
            by_class.append(name)
        elif found is not None and _is_per_column(name, found, tensor, old_count, new_count):
            tensor.zero_()
            for channel, old in channels.items():
                tensor[:, channel] = found[:, old].to(tensor.dtype)
            by_class.append(name)
        elif found is not None and found.shape == tensor.shape:
            tensor.copy_(found)
            (taken if origin == name and _PER_CLASS_ENTRY.search(name) is None else by_class).append(name)
        else:
            new.append(name)
    known = tuple(label.name for number, label in enumerate(new_labels, start=1) if number in channels)
    return TransferReport(tuple(taken), tuple(by_class), tuple(new), known)


def _origin(name: str, channels: Mapping[int, int]) -> str | None:
    """Name of the old tensor that a new one is copied from; None for new classes."""
    match = _PER_CLASS_ENTRY.search(name)
    if match is None:
        return name
    channel = channels.get(int(match.group(2)))
    if channel is None:
        return None
    return f"{name[: match.start(2)]}{channel}{name[match.end(2) :]}"


def _is_per_row(found: Tensor, tensor: Tensor, old_count: int, new_count: int) -> bool:
    """Whether the first axis counts classes in both tensors and the other axes agree."""
    return (
        tensor.ndim > 0
        and found.ndim == tensor.ndim
        and found.shape[0] == old_count
        and tensor.shape[0] == new_count
        and found.shape[1:] == tensor.shape[1:]
        and tensor.shape[0] <= 256
    )


def _is_per_column(name: str, found: Tensor, tensor: Tensor, old_count: int, new_count: int) -> bool:
    """Whether the second axis counts classes in both tensors and the first one agrees."""
    return (
        _PER_CLASS_COLUMNS.search(name) is not None
        and found.shape[1:] == (old_count,)
        and tensor.shape[1:] == (new_count,)
        and found.shape[0] == tensor.shape[0]
    )


@dataclass(frozen=True)
class InitialWeights:
    """Where the initial weights come from.

    Attributes:
        model: the starting model; None without one.
        encoder_id: ID of an encoder in the store; "" for that of the starting model.
        encoder: specification of that encoder; None without an ID.
    """

    model: LoadedModel | None
    encoder_id: str
    encoder: EncoderSpec | None = None

    @property
    def manifest(self) -> Manifest | None:
        """Manifest of the starting model."""
        return None if self.model is None else self.model.manifest


@dataclass(frozen=True)
class InitialNetwork:
    """An initialized network.

    Attributes:
        network: network with all weights that fit.
        encoder_source: where its encoder is found when the model is loaded.
        license: license that the model inherits.
        notes: sentences on the initialization.
        facts: entries for the manifest.
        old_labels: labels of the starting model; None without one.
        other_planes: tensors of its networks for other planes, by plane.
    """

    network: SegmentationNetwork
    encoder_source: EncoderSource
    license: License
    notes: tuple[str, ...]
    facts: dict[str, Any]
    old_labels: LabelSet | None = None
    other_planes: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)


def open_initial_weights(request: FinetuneRequest, store: Store | None = None) -> InitialWeights:
    """Find the starting model and the encoder of a request.

    Raises:
        ModelNotFoundError: if one of them is not on this computer.
        CheckpointError: if a file cannot be used.
    """
    store = store if store is not None else Store()
    encoder_id = "" if request.encoder == COMPACT else request.encoder
    encoder = _encoder_spec(encoder_id, store) if encoder_id else None
    if request.start_from == SCRATCH or (encoder_id and not request.start_from):
        return InitialWeights(None, encoder_id, encoder)
    if request.start_from:
        return InitialWeights(load_model(request.start_from, store=store), encoder_id, encoder)
    try:
        return InitialWeights(load_model(DEFAULT_START, store=store), "")
    except ModelNotFoundError:
        return InitialWeights(None, "")


def _encoder_spec(encoder_id: str, store: Store) -> EncoderSpec:
    """Specification of an encoder in the store, of a SAM file or of a model."""
    path = store.path_of(encoder_id)
    if file_kind(path) == SAFETENSORS:
        return read_manifest(path).architecture.encoder
    found = read_official(path).found
    if found.encoder is None:
        raise CheckpointError(
            f"'{encoder_id}' does not contain an image encoder. 'hsam-segment models' lists the encoders."
        )
    return found.encoder


def initialize_network(
    source: InitialWeights, recipe: Recipe, labels: LabelSet, store: Store | None = None
) -> InitialNetwork:
    """Build the network of a recipe, and copy all weights that fit.

    Raises:
        CheckpointError: if a weights file cannot be used.
    """
    store = store if store is not None else Store()
    network = build_network(recipe.architecture)
    if recipe.architecture.encoder.name == COMPACT:
        encoder: Any = network.encoder
        encoder.initialize()
    tensors: dict[str, Tensor] = {}
    if source.encoder_id:
        tensors.update(starting_tensors(source.encoder_id, network, recipe.architecture.head, store=store))
    if source.model is not None:
        tensors.update(_of_model(source, network))
    old_labels = None if source.manifest is None else source.manifest.labels
    report = transfer(tensors, network, old_labels=old_labels, new_labels=labels)
    return InitialNetwork(
        network=network,
        encoder_source=_encoder_source(source, recipe, store),
        license=_license(source, store),
        notes=(
            report.sentence if tensors else "No starting model: the network is trained from scratch.",
            *_lost_planes(source, recipe),
        ),
        facts={
            "model": "" if source.manifest is None else source.manifest.id,
            "encoder": source.encoder_id or recipe.architecture.encoder.name,
            "taken": len(report.taken),
            "by_class": len(report.by_class),
            "new": list(report.new),
            "common_labels": list(report.common_labels),
        },
        old_labels=old_labels,
        other_planes=_other_planes(source),
    )


def _lost_planes(source: InitialWeights, recipe: Recipe) -> tuple[str, ...]:
    """A sentence on the starting model's networks for other planes that are not trained further."""
    lost = [plane for plane in _other_planes(source) if plane != recipe.second_plane]
    if not lost:
        return ()
    return (
        f"The starting model also reads {' and '.join(lost)} slices; the new model does not, since this needs two to "
        "five scans with thin slices that are all labeled.",
    )


def _other_planes(source: InitialWeights) -> dict[str, Mapping[str, Tensor]]:
    """The starting model's networks for other planes, unless its encoder is replaced."""
    if source.model is None or source.encoder_id:
        return {}
    return {plane: network.state_dict() for plane, network in source.model.network.other_planes.items()}


def _of_model(source: InitialWeights, network: SegmentationNetwork) -> Mapping[str, Tensor]:
    """Tensors of the starting model, without its encoder if another one is used."""
    state = {} if source.model is None else source.model.network.state_dict()
    if source.encoder_id:
        return {name: tensor for name, tensor in state.items() if not name.startswith("encoder.")}
    return state


def _encoder_source(source: InitialWeights, recipe: Recipe, store: Store) -> EncoderSource:
    if recipe.adaptation == FULL or recipe.architecture.encoder.name == COMPACT:
        return EncoderSource(included=True)
    if source.encoder_id:
        return EncoderSource(False, source.encoder_id, store.sha256(store.path_of(source.encoder_id)))
    return source.manifest.encoder_source if source.manifest is not None else EncoderSource(included=True)


def _license(source: InitialWeights, store: Store) -> License:
    """License of the starting model or encoder; the terms of the user's scans apply in addition."""
    if source.manifest is not None:
        inherited = source.manifest.license
    elif source.encoder_id:
        entry = store.find(source.encoder_id)
        inherited = entry.license if entry.kind == ENCODER else OWN_LICENSE
    else:
        return OWN_LICENSE
    terms = f"Inherited from the starting model: {inherited.terms} The terms of the training scans apply in addition."
    return License(inherited.name, terms, inherited.url, inherited.research_only)
