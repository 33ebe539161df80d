"""The catalog of known weights files: where they are, their sizes, and their licenses. No torch here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from HSAMSegmentLib.errors import CheckpointError, ModelNotFoundError
from HSAMSegmentLib.weights.manifest import License, Manifest
from HSAMSegmentLib.weights.resources import CATALOG_FILE, builtin_models_folder

CATALOG_SCHEMA_VERSION = 1
ENCODER = "encoder"
MODEL = "model"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.(pth|pt|safetensors)")

RENAMED_MODELS = {"abdomen-mr-t2": "abdomen-mr"}
"""Maps former IDs to the IDs of the models that replaced them."""

MOVED_ENCODERS = {"9f53fc18e82c23498ab70514cb7ab4bf98405c8988aced9c75798ceed0211698": "cardiac-mr-bssfp"}
"""Maps the SHA-256 of former bundles to the ID of the model whose bundle holds the same encoder. Models that were
fine-tuned with that encoder refer to the former bundle."""


@dataclass(frozen=True)
class CatalogEntry:
    """One known weights file.

    Attributes:
        id: short name, used by the command line and by other entries.
        title: display name.
        kind: `ENCODER` (segments nothing by itself) or `MODEL`.
        file_name: name of the file in the store.
        urls: addresses of the identical file, best first; empty if it can only be imported.
        page: web page to get the file from or read about it.
        size_bytes: exact size, or None if unknown.
        approximate_bytes: size for display and disk checks if the exact one is unknown.
        sha256: hash of the file, empty if unknown.
        license: license of the weights.
        encoder: for a model, ID of the encoder it needs ("" if included); for an encoder, its own ID.
        organs: organs that a model segments, in the order of its channels.
        modality: "CT", "MR" or "".
        citation: papers and data sets to cite.
        description: a paragraph for users.
        manifest: for a model whose file has none.
    """

    id: str
    title: str
    kind: str
    file_name: str
    urls: tuple[str, ...]
    page: str
    size_bytes: int | None
    approximate_bytes: int
    sha256: str
    license: License
    encoder: str = ""
    organs: tuple[str, ...] = ()
    modality: str = ""
    citation: tuple[str, ...] = ()
    description: str = ""
    manifest: Manifest | None = None

    @property
    def expected_bytes(self) -> int:
        """Exact size if known, else the approximate one."""
        return self.size_bytes if self.size_bytes is not None else self.approximate_bytes

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> CatalogEntry:
        """Read one entry of the catalog, validating every field.

        Raises:
            CheckpointError: naming the entry, the field and the problem.
        """
        name = str(data.get("id", "without id"))
        try:
            manifest = data.get("manifest")
            entry = cls(
                **{
                    **data,
                    "urls": tuple(data["urls"]),
                    "license": License(**data["license"]),
                    "organs": tuple(data.get("organs", ())),
                    "citation": tuple(data.get("citation", ())),
                    "manifest": None if manifest is None else Manifest.from_json(json.dumps(manifest)),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"The catalog's entry '{name}' is incomplete or has an unknown field: {error}."
            ) from error
        for complaint in _complaints(entry):
            raise CheckpointError(f"The catalog's entry '{name}' is wrong: {complaint}.")
        return entry


def _complaints(entry: CatalogEntry) -> Iterator[str]:
    """Problems with the values of an entry, as parts of a sentence."""
    texts = (entry.id, entry.title, entry.kind, entry.file_name, entry.page, entry.sha256, entry.encoder)
    if not all(isinstance(text, str) for text in (*texts, *entry.urls, *entry.organs, *entry.citation)):
        yield "a text is not a text"
        return
    if not _ID.fullmatch(entry.id):
        yield f"the id '{entry.id}' has characters other than letters, digits, '-', '_' and '.'"
    if entry.kind not in (ENCODER, MODEL):
        yield f"the kind is '{entry.kind}', not '{ENCODER}' or '{MODEL}'"
    if not _FILE_NAME.fullmatch(entry.file_name):
        yield f"'{entry.file_name}' is not a plain file name that ends in .pth, .pt or .safetensors"
    yield from _complaints_about_source(entry)
    if entry.kind == MODEL and not entry.organs:
        yield "a model names no organs"
    if entry.manifest is not None:
        yield from _complaints_about_manifest(entry, entry.manifest)


def _complaints_about_source(entry: CatalogEntry) -> Iterator[str]:
    if entry.sha256 and not _SHA256.fullmatch(entry.sha256):
        yield "sha256 is not 64 lowercase hexadecimal digits"
    if entry.size_bytes is not None and not (isinstance(entry.size_bytes, int) and entry.size_bytes > 0):
        yield "size_bytes is neither null nor a positive number"
    if not isinstance(entry.approximate_bytes, int) or entry.approximate_bytes <= 0:
        yield "approximate_bytes is not a positive number"
    for url in entry.urls:
        if urlparse(url).scheme not in ("https", "http") or not urlparse(url).netloc:
            yield f"'{url}' is not a web address"
    if not entry.urls and not entry.page:
        yield "it has neither a download address nor a page"


def _complaints_about_manifest(entry: CatalogEntry, manifest: Manifest) -> Iterator[str]:
    if manifest.id != entry.id:
        yield f"its manifest has the id '{manifest.id}'"
    names = tuple(label.name for label in manifest.labels)
    if names != entry.organs:
        yield f"its organs ({', '.join(entry.organs)}) are not the labels of its manifest ({', '.join(names)})"
    if manifest.architecture.num_classes != len(names):
        yield f"its manifest has {len(names)} labels for {manifest.architecture.num_classes} classes"
    if manifest.encoder_source.model_id != entry.encoder:
        yield f"its encoder is '{entry.encoder}' here and '{manifest.encoder_source.model_id}' in its manifest"


@dataclass(frozen=True)
class Catalog:
    """All known weights files, with unique IDs."""

    entries: tuple[CatalogEntry, ...]

    def __iter__(self) -> Iterator[CatalogEntry]:
        return iter(self.entries)

    def __contains__(self, entry_id: str) -> bool:
        return any(entry.id == entry_id for entry in self.entries)

    def find(self, entry_id: str) -> CatalogEntry:
        """The entry with this ID.

        Raises:
            ModelNotFoundError: if there is none.
        """
        for entry in self.entries:
            if entry.id == entry_id:
                return entry
        known = ", ".join(entry.id for entry in self.entries)
        raise ModelNotFoundError(f"The catalog has no '{entry_id}'; it has {known}.")

    def with_sha256(self, sha256: str) -> CatalogEntry | None:
        """The entry whose file has this hash, or None."""
        return next((entry for entry in self.entries if entry.sha256 and entry.sha256 == sha256), None)


def parse_catalog(text: str) -> Catalog:
    """Parse a catalog from JSON text.

    Raises:
        CheckpointError: if it is not JSON, has a newer schema, or an invalid entry.
    """
    try:
        data = json.loads(text)
        version, items = int(data["schema_version"]), list(data["entries"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"The catalog cannot be read: {error!r}.") from error
    if version > CATALOG_SCHEMA_VERSION:
        raise CheckpointError(
            f"The catalog has schema version {version}, this program reads up to {CATALOG_SCHEMA_VERSION}. "
            "Update HSAMSegment."
        )
    if not all(isinstance(item, dict) for item in items):
        raise CheckpointError("The catalog cannot be read: an entry is not a JSON object.")
    entries = tuple(CatalogEntry.from_json(item) for item in items)
    _require_consistent(entries)
    return Catalog(entries)


def _require_consistent(entries: tuple[CatalogEntry, ...]) -> None:
    for field in ("id", "file_name"):
        values = [getattr(entry, field) for entry in entries]
        repeated = sorted({value for value in values if values.count(value) > 1})
        if repeated:
            raise CheckpointError(f"The catalog has more than one entry with the {field} '{repeated[0]}'.")


@lru_cache(maxsize=4)
def load_catalog(path: Path | None = None) -> Catalog:
    """Read the catalog of the program, or another one.

    Raises:
        CheckpointError: if it is invalid.
    """
    path = path if path is not None else builtin_models_folder() / CATALOG_FILE
    try:
        return parse_catalog(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"The catalog {path} cannot be read ({error}).") from error
