"""Load models by ID or file, and save networks as bundles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from HSAMSegmentLib.errors import CheckpointError, ModelNotFoundError
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.models.lora import ADAPTER_NAMES
from HSAMSegmentLib.weights.bundle import read_manifest, read_tensors, save_bundle
from HSAMSegmentLib.weights.catalog import ENCODER, MOVED_ENCODERS
from HSAMSegmentLib.weights.convert.official_files import (
    OfficialWeights,
    encoder_tensors,
    network_from_official,
    read_official,
)
from HSAMSegmentLib.weights.convert.official_keys import initial_head_keys
from HSAMSegmentLib.weights.convert.official_manifest import manifest_for
from HSAMSegmentLib.weights.file_kind import SAFETENSORS, file_kind
from HSAMSegmentLib.weights.instantiate import filled_network
from HSAMSegmentLib.weights.manifest import EncoderSource, Manifest
from HSAMSegmentLib.weights.store import WEIGHT_SUFFIXES, Store
from HSAMSegmentLib.weights.store_entries import encoder_id, notes_of, unknown_encoder

_ENCODER = "encoder."
_HEAD = "head."


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights, on the CPU, in evaluation mode.

    Attributes:
        network: network from `models.building.build_network`, with its weights.
        manifest: its manifest.
        path: its file.
        notes: assumptions about the file that could be wrong, one sentence each, for the user.
    """

    network: SegmentationNetwork
    manifest: Manifest
    path: Path
    notes: tuple[str, ...] = ()


def load_model(reference: str | Path, *, store: Store | None = None, image_size: int | None = None) -> LoadedModel:
    """Load a model by ID or from a file.

    Args:
        reference: ID of a built-in or stored model, or path of a bundle or of an official file (H-SAM, SAMed, AutoSAM),
            whose labels are then those of the catalog's model with the same layout, or "class 1" and so on.
        store: where IDs and encoders are looked up; None for the default store.
        image_size: for an official file that does not determine it.

    Raises:
        ModelNotFoundError: if the model, or the encoder that it needs, is not on this computer; says how to get it.
        CheckpointError: if a file is damaged, unsafe, unknown, an encoder only, or does not fit.
    """
    store = store if store is not None else Store()
    path = _as_path(reference)
    if path is not None:
        return _load_file(path, store, None, image_size)
    entry = store.find(str(reference))
    if entry.kind == ENCODER:
        raise CheckpointError(f"{entry.title} is an encoder; it segments nothing by itself. Choose a model.")
    loaded = _load_file(store.path_of(entry.id), store, entry.manifest, image_size)
    return replace(loaded, notes=entry.notes)


def _as_path(reference: str | Path) -> Path | None:
    """The file that a reference names, or None if it is an ID."""
    path = Path(reference).expanduser()
    if isinstance(reference, Path) or path.suffix in WEIGHT_SUFFIXES or path.is_file() or len(path.parts) > 1:
        return path
    return None


def _load_file(path: Path, store: Store, manifest: Manifest | None, image_size: int | None) -> LoadedModel:
    if file_kind(path) == SAFETENSORS:
        manifest = read_manifest(path)
        return LoadedModel(_network_of_bundle(path, manifest, store), manifest, path, notes_of(manifest))
    weights = read_official(path)
    if manifest is None:
        manifest = manifest_for(weights.found, store.catalog, name=path.stem, image_size=image_size)
    source = manifest.encoder_source
    encoder = None if source.included else _official_encoder(source, store, manifest.title)
    manifest = _with_encoder_sizes(manifest, encoder)
    network = network_from_official(weights, manifest.architecture, encoder)
    return LoadedModel(network, manifest, path, notes_of(manifest))


def _with_encoder_sizes(manifest: Manifest, encoder: OfficialWeights | None) -> Manifest:
    """Complete the specification of an adapter file's encoder with sizes from the encoder's own file."""
    spec = manifest.architecture.encoder
    if encoder is None or encoder.found.encoder is None or spec.options or spec.name != "custom":
        return manifest
    spec = replace(spec, options=encoder.found.encoder.options)
    return replace(manifest, architecture=replace(manifest.architecture, encoder=spec))


def _network_of_bundle(path: Path, manifest: Manifest, store: Store) -> SegmentationNetwork:
    tensors = read_tensors(path)

    def collect(network: SegmentationNetwork) -> dict[str, Tensor]:
        if manifest.encoder_source.included:
            return tensors
        return {**_encoder_for(manifest, network, store), **tensors}

    return filled_network(manifest.architecture, collect, file=path.name)


def _encoder_for(manifest: Manifest, network: SegmentationNetwork, store: Store) -> dict[str, Tensor]:
    """The encoder's tensors that a bundle refers to, by the network's names."""
    source = manifest.encoder_source
    path = _encoder_path(source, store, manifest.title)
    if file_kind(path) == SAFETENSORS:
        found = {name: tensor for name, tensor in read_tensors(path).items() if name.startswith(_ENCODER)}
        return {name: tensor for name, tensor in found.items() if not _is_adapter(name)}
    return _prefixed(_ENCODER, encoder_tensors(read_official(path), network.encoder))


def _official_encoder(source: EncoderSource, store: Store, needed_by: str) -> OfficialWeights:
    return read_official(_encoder_path(source, store, needed_by))


def _encoder_path(source: EncoderSource, store: Store, needed_by: str) -> Path:
    """The file with the encoder that a model needs, verified against the hash in the model.

    Raises:
        ModelNotFoundError: if it is not on this computer.
        CheckpointError: if it differs from the file that the model was made with.
    """
    if source.sha256 in MOVED_ENCODERS:
        return store.path_of(encoder_id(source), needed_by)
    try:
        path = store.path_of(source.model_id, needed_by)
    except ModelNotFoundError as error:
        if any(entry.id == source.model_id for entry in store.models()):
            raise
        raise ModelNotFoundError(unknown_encoder(source.model_id, needed_by).problem) from error
    if source.sha256 and store.sha256(path) != source.sha256:
        raise CheckpointError(
            f"{needed_by} was made with another file of the encoder '{source.model_id}' (SHA-256 {source.sha256}) than "
            f"the one on this computer, {path.name} (SHA-256 {store.sha256(path)}). Import the right one."
        )
    return path


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def _is_adapter(name: str) -> bool:
    return name.rsplit(".", 1)[-1] in ADAPTER_NAMES


def starting_tensors(
    model_id: str | Path, network: SegmentationNetwork, head: str, *, store: Store | None = None
) -> dict[str, Tensor]:
    """Tensors that a new network can start from, by the network's own names; parts without a counterpart are omitted.

    Args:
        model_id: an encoder (SAM, MobileSAM: the encoder at the network's image size, and the tensors of SAM's decoder
            for the head) or a model (all its tensors). A path works as well.
        network: the network to initialize.
        head: its kind of head, one of `models.specification.HEADS`.
        store: where IDs are looked up; None for the default store.

    Raises:
        ModelNotFoundError: if it is not on this computer; says how to get it.
        CheckpointError: if a file is damaged, unsafe or unknown.
    """
    store = store if store is not None else Store()
    path = _as_path(model_id) or store.path_of(str(model_id))
    weights = None if file_kind(path) == SAFETENSORS else read_official(path)
    if weights is None or weights.found.head:
        return dict(load_model(model_id, store=store).network.state_dict())
    start = {ours: weights.state[official] for ours, official in initial_head_keys(head, weights.state).items()}
    return {**_prefixed(_ENCODER, encoder_tensors(weights, network.encoder)), **_prefixed(_HEAD, start)}


def bundle_tensors(network: nn.Module, manifest: Manifest) -> dict[str, Tensor]:
    """The tensors of a network's bundle: all, or all but a shared encoder.

    Adapters inside the encoder are always included.
    """
    state = network.state_dict()
    if manifest.encoder_source.included:
        return dict(state)
    return {name: tensor for name, tensor in state.items() if not name.startswith(_ENCODER) or _is_adapter(name)}


def save_model(
    path: Path | str, network: nn.Module, manifest: Manifest, *, overwrite: bool = False, dtype: str | None = None
) -> Path:
    """Save a network as a bundle, with its encoder unless the manifest refers to one elsewhere.

    Args:
        path: output file.
        network: the network, with unmerged adapters.
        manifest: manifest of the bundle.
        overwrite: replace an existing file.
        dtype: "float16" or "bfloat16" for half the size; None keeps the types.

    Raises:
        OutputError: if the file exists and may not be overwritten, or cannot be written.
    """
    return save_bundle(path, bundle_tensors(network, manifest), manifest, overwrite, dtype=dtype)
