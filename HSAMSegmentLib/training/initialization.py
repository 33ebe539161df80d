"""What teaching starts from: SAM's weights, an embedded model, or any bundle; and a network filled with what fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from HSAMSegmentLib.errors import CheckpointError, ModelNotFoundError
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.models.specification import EncoderSpec
from HSAMSegmentLib.training.features.adaptation import FULL
from HSAMSegmentLib.training.recipe import COMPACT, TeachPlan
from HSAMSegmentLib.training.request import TeachRequest
from HSAMSegmentLib.training.weight_transfer import transfer
from HSAMSegmentLib.weights.bundle import read_manifest
from HSAMSegmentLib.weights.catalog import ENCODER
from HSAMSegmentLib.weights.convert.official_files import read_official
from HSAMSegmentLib.weights.file_kind import SAFETENSORS, file_kind
from HSAMSegmentLib.weights.loading import LoadedModel, load_model, starting_tensors
from HSAMSegmentLib.weights.manifest import EncoderSource, License, Manifest
from HSAMSegmentLib.weights.store import Store

DEFAULT_START = "abdomen-mr-t2"
SCRATCH = "scratch"
OWN_LICENSE = License("Terms of its scans", "Taught from scans of your own: their terms apply.", research_only=False)


@dataclass(frozen=True)
class StartSource:
    """Where the first weights come from.

    Attributes:
        model: the starting model, None without one.
        encoder_id: id of an encoder of the store, "" if the starting model's is used.
        encoder: what that encoder is, None without an id.
    """

    model: LoadedModel | None
    encoder_id: str
    encoder: EncoderSpec | None = None

    @property
    def manifest(self) -> Manifest | None:
        """What the starting model says about itself."""
        return None if self.model is None else self.model.manifest


@dataclass(frozen=True)
class Start:
    """A network that is ready to learn.

    Attributes:
        network: filled with what fits.
        encoder_source: where its encoder will be found when the taught model is loaded.
        license: terms that the taught model inherits.
        notes: sentences on what was taken.
        facts: for the manifest.
        old_labels: labels of the starting model, None without one.
        other_planes: tensors of its networks for other planes, by plane.
    """

    network: SegmentationNetwork
    encoder_source: EncoderSource
    license: License
    notes: tuple[str, ...]
    facts: dict
    old_labels: LabelSet | None = None
    other_planes: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)


def open_start(request: TeachRequest, store: Store | None = None) -> StartSource:
    """Find the starting model and encoder of a request.

    Raises:
        ModelNotFoundError: if one of them is not on this computer.
        CheckpointError: if a file cannot be used.
    """
    store = store if store is not None else Store()
    encoder_id = "" if request.encoder == COMPACT else request.encoder
    encoder = _encoder_spec(encoder_id, store) if encoder_id else None
    if request.start_from == SCRATCH or (encoder_id and not request.start_from):
        return StartSource(None, encoder_id, encoder)
    if request.start_from:
        return StartSource(load_model(request.start_from, store=store), encoder_id, encoder)
    try:
        return StartSource(load_model(DEFAULT_START, store=store), "")
    except ModelNotFoundError:
        return StartSource(None, "")


def _encoder_spec(encoder_id: str, store: Store) -> EncoderSpec:
    """What the encoder of this id is: that of a file of SAM, or that of a model."""
    path = store.path_of(encoder_id)
    if file_kind(path) == SAFETENSORS:
        return read_manifest(path).architecture.encoder
    found = read_official(path).found
    if found.encoder is None:
        raise CheckpointError(f"'{encoder_id}' holds no image encoder. 'hsam-segment models' lists the encoders.")
    return found.encoder


def build_start(source: StartSource, plan: TeachPlan, labels: LabelSet, store: Store | None = None) -> Start:
    """Build the network of a plan and fill it.

    Raises:
        CheckpointError: if a file of weights cannot be used.
    """
    store = store if store is not None else Store()
    network = build_network(plan.architecture)
    if plan.architecture.encoder.name == COMPACT:
        network.encoder.initialize()
    tensors: dict[str, Tensor] = {}
    if source.encoder_id:
        tensors.update(starting_tensors(source.encoder_id, network, plan.architecture.head, store=store))
    if source.model is not None:
        tensors.update(_of_model(source, network))
    old_labels = None if source.manifest is None else source.manifest.labels
    report = transfer(tensors, network, old_labels=old_labels, new_labels=labels)
    return Start(
        network=network,
        encoder_source=_encoder_source(source, plan, store),
        license=_license(source, store),
        notes=(
            report.sentence if tensors else "Nothing to start from: the network learns from scratch.",
            *_lost_planes(source, plan),
        ),
        facts={
            "model": "" if source.manifest is None else source.manifest.id,
            "encoder": source.encoder_id or plan.architecture.encoder.name,
            "taken": len(report.taken),
            "by_class": len(report.by_class),
            "new": list(report.new),
            "common_labels": list(report.common_labels),
        },
        old_labels=old_labels,
        other_planes=_other_planes(source),
    )


def _lost_planes(source: StartSource, plan: TeachPlan) -> tuple[str, ...]:
    """A sentence on networks of the starting model for which nothing is taught."""
    lost = [plane for plane in _other_planes(source) if plane != plan.other_plane]
    if not lost:
        return ()
    return (
        f"The starting model also reads {' and '.join(lost)} slices; what is taught now does not, since that takes two "
        "to five scans with thin slices that are all labelled.",
    )


def _other_planes(source: StartSource) -> dict[str, Mapping[str, Tensor]]:
    """Of the starting model, unless another encoder takes its own's place."""
    if source.model is None or source.encoder_id:
        return {}
    return {plane: network.state_dict() for plane, network in source.model.network.other_planes.items()}


def _of_model(source: StartSource, network: SegmentationNetwork) -> Mapping[str, Tensor]:
    """The starting model's tensors; without its encoder's if another encoder is used."""
    state = source.model.network.state_dict()
    if source.encoder_id:
        return {name: tensor for name, tensor in state.items() if not name.startswith("encoder.")}
    return state


def _encoder_source(source: StartSource, plan: TeachPlan, store: Store) -> EncoderSource:
    if plan.adaptation == FULL or plan.architecture.encoder.name == COMPACT:
        return EncoderSource(included=True)
    if source.encoder_id:
        return EncoderSource(False, source.encoder_id, store.sha256(store.path_of(source.encoder_id)))
    return source.manifest.encoder_source if source.manifest is not None else EncoderSource(included=True)


def _license(source: StartSource, store: Store) -> License:
    """The stricter terms of what it starts from; those of the user's scans come on top."""
    if source.manifest is not None:
        inherited = source.manifest.license
    elif source.encoder_id:
        entry = store.find(source.encoder_id)
        inherited = entry.license if entry.kind == ENCODER else OWN_LICENSE
    else:
        return OWN_LICENSE
    terms = f"Inherited from what it was taught on top of: {inherited.terms} The terms of the taught scans come on top."
    return License(inherited.name, terms, inherited.url, inherited.research_only)
