"""Initialize the network of a training from SAM's weights, a built-in model, or any bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from HSAMSegmentLib.errors import CheckpointError, ModelNotFoundError
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.models.specification import EncoderSpec
from HSAMSegmentLib.training.features.adaptation import FULL
from HSAMSegmentLib.training.recipe import COMPACT, Recipe
from HSAMSegmentLib.training.request import FinetuneRequest
from HSAMSegmentLib.training.weight_transfer import transfer
from HSAMSegmentLib.weights.bundle import read_manifest
from HSAMSegmentLib.weights.catalog import ENCODER
from HSAMSegmentLib.weights.convert.official_files import read_official
from HSAMSegmentLib.weights.file_kind import SAFETENSORS, file_kind
from HSAMSegmentLib.weights.loading import LoadedModel, load_model, starting_tensors
from HSAMSegmentLib.weights.manifest import EncoderSource, License, Manifest
from HSAMSegmentLib.weights.store import Store

DEFAULT_START = "abdomen-mr"
SCRATCH = "scratch"
OWN_LICENSE = License("Terms of its scans", "Fine-tuned on your scans: their terms apply.", research_only=False)


@dataclass(frozen=True)
class InitialWeights:
    """Where the initial weights come from.

    Attributes:
        model: the starting model, None without one.
        encoder_id: id of an encoder in the store, "" for that of the starting model.
        encoder: specification of that encoder, None without an id.
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
        network: with all weights that fit.
        encoder_source: where its encoder is found when the model is loaded.
        license: terms that the model inherits.
        notes: sentences on the initialization.
        facts: for the manifest.
        old_labels: labels of the starting model, None without one.
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
        CheckpointError: if a file of weights cannot be used.
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
    """A sentence on networks of the starting model for other planes that are not trained further."""
    lost = [plane for plane in _other_planes(source) if plane != recipe.second_plane]
    if not lost:
        return ()
    return (
        f"The starting model also reads {' and '.join(lost)} slices; the new model does not, since this needs two to "
        "five scans with thin slices that are all labeled.",
    )


def _other_planes(source: InitialWeights) -> dict[str, Mapping[str, Tensor]]:
    """Networks for other planes of the starting model, unless its encoder is replaced."""
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
    """Terms of the starting model or encoder; the terms of the user's scans apply in addition."""
    if source.manifest is not None:
        inherited = source.manifest.license
    elif source.encoder_id:
        entry = store.find(source.encoder_id)
        inherited = entry.license if entry.kind == ENCODER else OWN_LICENSE
    else:
        return OWN_LICENSE
    terms = f"Inherited from the starting model: {inherited.terms} The terms of the training scans apply in addition."
    return License(inherited.name, terms, inherited.url, inherited.research_only)
