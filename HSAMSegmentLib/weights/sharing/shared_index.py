"""The index of shared models: a small JSON file next to them with the description and hash of each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from HSAMSegmentLib.errors import CheckpointError, ModelNotFoundError
from HSAMSegmentLib.weights.bundle import BUNDLE_SUFFIX
from HSAMSegmentLib.weights.manifest import License, Manifest
from HSAMSegmentLib.weights.store_entries import NO_LICENSE

HUB_SCHEME = "hf://"
INDEX_NAME = "hsamsegment.json"
INDEX_SCHEMA = "hsamsegment-index"
INDEX_SCHEMA_VERSION = 1
LARGEST_INDEX_BYTES = 4 << 20

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class SharedModel:
    """One entry of an index.

    Attributes:
        id: ID in the manifest of its bundle.
        title: display name.
        file: file name of the bundle, without folders.
        size_bytes: its size.
        sha256: its hash.
        modality: "CT", "MR" or "".
        organs: names of the organs that it segments.
        encoder: ID of the encoder that it needs in addition, "" if included.
        license: license of the weights.
    """

    id: str
    title: str
    file: str
    size_bytes: int
    sha256: str
    modality: str = ""
    organs: tuple[str, ...] = ()
    encoder: str = ""
    license: License = field(default=NO_LICENSE)


def shared_model(manifest: Manifest, size_bytes: int, sha256: str) -> SharedModel:
    """The index entry of a bundle."""
    source = manifest.encoder_source
    return SharedModel(
        id=manifest.id,
        title=manifest.title,
        file=f"{manifest.id}{BUNDLE_SUFFIX}",
        size_bytes=size_bytes,
        sha256=sha256,
        modality=manifest.modality,
        organs=tuple(label.name for label in manifest.labels),
        encoder="" if source.included else source.model_id,
        license=manifest.license,
    )


def index_text(models: Iterable[SharedModel]) -> str:
    """The content of an index file."""
    entries = [asdict(model) for model in sorted(models, key=lambda model: model.id)]
    data = {"schema": INDEX_SCHEMA, "schema_version": INDEX_SCHEMA_VERSION, "models": entries}
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def parse_index(text: str, place: str) -> tuple[SharedModel, ...]:
    """Parse an index, validating every field, since it comes from elsewhere.

    Args:
        text: content of the file.
        place: where it is from, for messages.

    Raises:
        CheckpointError: if it is not an index, has a newer schema, or an invalid entry.
    """
    try:
        data = json.loads(text)
        schema, version, items = data["schema"], int(data["schema_version"]), list(data["models"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"The index {INDEX_NAME} of {place} cannot be read ({error!r:.200}).") from error
    if schema != INDEX_SCHEMA:
        raise CheckpointError(f"The file {INDEX_NAME} of {place} is not an index of models.")
    if version > INDEX_SCHEMA_VERSION:
        raise CheckpointError(
            f"The index of {place} has schema version {version}, this program reads up to {INDEX_SCHEMA_VERSION}. "
            "Update HSAMSegment."
        )
    models = tuple(_entry(item, place) for item in items)
    ids = [model.id for model in models]
    if len(set(ids)) < len(ids):
        raise CheckpointError(f"The index of {place} names a model twice. Write it again.")
    return models


def _entry(item: object, place: str) -> SharedModel:
    try:
        fields = dict(item)  # type: ignore[call-overload]  # anything may come; a wrong kind is the error below
        fields["organs"] = tuple(fields.get("organs", ()))
        fields["license"] = License(**fields.get("license", asdict(NO_LICENSE)))
        model = SharedModel(**fields)
        texts = (model.id, model.title, model.file, model.sha256, model.modality, model.encoder, *model.organs)
        is_right = all(isinstance(text, str) for text in texts) and isinstance(model.size_bytes, int)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"An entry of the index of {place} is incomplete or unknown ({error}).") from error
    if not is_right or model.size_bytes <= 0:
        raise CheckpointError(f"An entry of the index of {place} has a value of the wrong kind.")
    if not (_ID.fullmatch(model.id) and _FILE_NAME.fullmatch(model.file) and _SHA256.fullmatch(model.sha256)):
        raise CheckpointError(
            f"The entry '{model.id}' of the index of {place} has an id, a file name or a hash that cannot be right."
        )
    return model


def find_shared(models: Sequence[SharedModel], model_id: str, place: str) -> SharedModel:
    """The model with an ID; the only one if the ID is empty.

    Raises:
        ModelNotFoundError: listing the available models.
    """
    listed = ", ".join(model.id for model in models) or "no model"
    if not model_id:
        if len(models) == 1:
            return models[0]
        raise ModelNotFoundError(f"{place} has {listed}. Name one of them.")
    for model in models:
        if model.id == model_id:
            return model
    raise ModelNotFoundError(f"{place} has no model '{model_id}'; it has {listed}.")


def require_same(model: SharedModel, sha256: str, place: str) -> None:
    """Ensure that a file is the one in the index.

    Raises:
        CheckpointError: if its hash differs.
    """
    if sha256 != model.sha256:
        raise CheckpointError(
            f"{model.file} of {place} is not the file of its index (SHA-256 {sha256}, expected {model.sha256}): it is "
            "damaged, or was replaced. Nothing was imported."
        )
