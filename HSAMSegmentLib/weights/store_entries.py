"""Entries of the store: one per model or encoder, present or available for download. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.weights.bundle import BUNDLE_SUFFIX, read_manifest
from HSAMSegmentLib.weights.catalog import ENCODER, MODEL, MOVED_ENCODERS, CatalogEntry
from HSAMSegmentLib.weights.convert.official_manifest import NOTES_KEY
from HSAMSegmentLib.weights.convert.recognition import OfficialFile, plain_state, recognize, require_architecture
from HSAMSegmentLib.weights.convert.torch_header import read_torch_header
from HSAMSegmentLib.weights.file_kind import SAFETENSORS, file_kind
from HSAMSegmentLib.weights.manifest import EncoderSource, License, Manifest

BUILT_IN = "embedded"
STORED = "stored"
AVAILABLE = "available"
BROKEN = "broken"
NO_LICENSE = License("unknown", "The file does not tell its terms; ask its author.")


@dataclass(frozen=True)
class ModelEntry:
    """One model or encoder, as listed.

    Attributes:
        id: name for the command line and for other models.
        title: display name.
        kind: "model" or "encoder".
        status: `BUILT_IN` (comes with the program), `STORED` (downloaded, imported or fine-tuned), `AVAILABLE` (in the
            catalog, not on this computer) or `BROKEN` (an unusable file; `problem` says why).
        path: the file, or None if there is none.
        size_bytes: size of the file, or of the download.
        organs: names of the organs that a model segments.
        modality: "CT", "MR" or "".
        encoder: ID of the encoder that a model needs in addition, "" if included.
        license: license of the weights.
        manifest: manifest of a model; None for encoders and damaged files.
        catalog: catalog entry, or None for files that are not in the catalog.
        problem: why the file is unusable, or (for an intact model) that the encoder it needs is unknown; "" if all is
            well.
        partial_bytes: size of an unfinished download.
    """

    id: str
    title: str
    kind: str
    status: str
    path: Path | None
    size_bytes: int
    organs: tuple[str, ...] = ()
    modality: str = ""
    encoder: str = ""
    license: License = NO_LICENSE
    manifest: Manifest | None = None
    catalog: CatalogEntry | None = None
    problem: str = ""
    partial_bytes: int = 0

    @property
    def is_present(self) -> bool:
        """Whether the file is on this computer and usable."""
        return self.status in (BUILT_IN, STORED)

    @property
    def is_bundle(self) -> bool:
        """Whether the file is here and contains its own manifest."""
        return self.path is not None and self.path.suffix == BUNDLE_SUFFIX

    @property
    def is_removable(self) -> bool:
        """Whether the user may delete the file."""
        return self.status in (STORED, BROKEN) or self.partial_bytes > 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Assumptions about the model that could be wrong."""
        notes = notes_of(self.manifest)
        if self.catalog is not None and not self.catalog.sha256 and self.path is not None:
            notes += (f"No hash of {self.title} is known; the file was recognized by its layout only.",)
        return notes


def notes_of(manifest: Manifest | None) -> tuple[str, ...]:
    """Assumptions made when creating the manifest for a file that had none."""
    return tuple(manifest.training.get(NOTES_KEY, ())) if manifest is not None else ()


def recognize_file(path: Path) -> OfficialFile | None:
    """Recognize a weights file from its first kilobytes; None for a bundle.

    Raises:
        CheckpointError: if it is not a weights file, unsafe or unknown.
    """
    if file_kind(path) == SAFETENSORS:
        return None
    return recognize(plain_state(read_torch_header(path), path.name), path.name)


def entry_from_catalog(known: CatalogEntry, path: Path | None, partial_bytes: int = 0) -> ModelEntry:
    """The entry of a catalog file, on this computer or not."""
    problem = _problem_of(known, path) if path is not None else ""
    status = BROKEN if problem else STORED if path is not None else AVAILABLE
    return ModelEntry(
        id=known.id,
        title=known.title,
        kind=known.kind,
        status=status,
        path=path,
        size_bytes=path.stat().st_size if path is not None else known.expected_bytes,
        organs=known.organs,
        modality=known.modality,
        encoder=known.encoder if known.kind == MODEL else "",
        license=known.license,
        manifest=known.manifest,
        catalog=known,
        problem=problem,
        partial_bytes=partial_bytes,
    )


def _problem_of(known: CatalogEntry, path: Path) -> str:
    size = path.stat().st_size
    if known.size_bytes is not None and size != known.size_bytes:
        return (
            f"{path.name} has {size} bytes, where {known.title} has {known.size_bytes}: it is incomplete or another "
            "file. Remove it and download it again."
        )
    try:
        require_known(known, path, path.name)
    except CheckpointError as error:
        return str(error)
    return ""


def require_known(known: CatalogEntry, path: Path, file: str) -> None:
    """Ensure, by content, that a file matches its catalog entry, for files without a known hash.

    Args:
        known: the catalog entry.
        path: the file.
        file: name of the file in messages.

    Raises:
        CheckpointError: if it does not; names both sides.
    """
    found = recognize_file(path)
    if found is None:
        read_manifest(path)
    elif known.manifest is not None:
        wanted_by = f"the catalog's entry '{known.id}'"
        require_architecture(found, known.manifest.architecture, file=file, wanted_by=wanted_by)
    elif known.kind == ENCODER and (found.head or found.encoder_name != known.encoder):
        raise CheckpointError(f"{file} is {found.title}, not {known.title}.")


def entry_from_manifest(manifest: Manifest, path: Path, status: str) -> ModelEntry:
    """The entry of a bundle, or of an official file with a manifest next to it."""
    return ModelEntry(
        id=manifest.id,
        title=manifest.title,
        kind=MODEL,
        status=status,
        path=path,
        size_bytes=path.stat().st_size,
        organs=tuple(label.name for label in manifest.labels),
        modality=manifest.modality,
        encoder="" if manifest.encoder_source.included else encoder_id(manifest.encoder_source),
        license=manifest.license,
        manifest=manifest,
    )


def encoder_id(source: EncoderSource) -> str:
    """Current ID of the file that holds an encoder."""
    return MOVED_ENCODERS.get(source.sha256, source.model_id)


def entry_from_file(path: Path, status: str, manifest: Manifest | None) -> ModelEntry:
    """The entry of a file that is not in the catalog; a damaged one is described instead of raising.

    Args:
        path: the file.
        status: `BUILT_IN` or `STORED`.
        manifest: manifest next to an official file, if any.
    """
    try:
        if path.suffix == BUNDLE_SUFFIX:
            return entry_from_manifest(read_manifest(path), path, status)
        found = recognize_file(path)
        if manifest is not None:
            return entry_from_manifest(manifest, path, status)
        if found is None or found.head:
            raise CheckpointError(f"{path.name} was put here by hand; import it, so that its labels are known.")
        title = f"{found.encoder_title} image encoder ({path.stem})"
        return ModelEntry(path.stem, title, ENCODER, status, path, path.stat().st_size)
    except CheckpointError as error:
        return ModelEntry(path.stem, path.name, MODEL, BROKEN, path, path.stat().st_size, problem=str(error))


def unknown_encoder(encoder: str, needed_by: str) -> ModelEntry:
    """The entry of an unknown encoder, which is neither here nor in the catalog; `needed_by` is a title."""
    problem = (
        f"{needed_by} needs the encoder '{encoder}', which is unknown here. Get its file from the author of the model "
        f"and import it under the id '{encoder}'."
    )
    return ModelEntry(encoder, f"the encoder '{encoder}'", ENCODER, AVAILABLE, None, 0, problem=problem)


def with_unknown_encoders_named(entries: list[ModelEntry]) -> list[ModelEntry]:
    """Mark each model that needs an unknown encoder, so that it does not affect the others."""
    known = {"", *(entry.id for entry in entries)}
    return [
        entry if entry.encoder in known else replace(entry, problem=unknown_encoder(entry.encoder, entry.title).problem)
        for entry in entries
    ]


def without_repetitions(entries: list[ModelEntry]) -> list[ModelEntry]:
    """Keep the first of several files with one ID usable, and mark the others."""
    first: dict[str, ModelEntry] = {}
    kept = []
    for entry in entries:
        if entry.id in first:
            kept.extend([_repeated(entry, first)] if entry.path is not None else [])
        else:
            first[entry.id] = entry
            kept.append(entry)
    return kept


def _repeated(entry: ModelEntry, first: Mapping[str, Any]) -> ModelEntry:
    other = first[entry.id].title
    problem = f"{entry.title} has the id '{entry.id}', which belongs to '{other}'. Remove one of them."
    file = entry.path.stem if entry.path is not None else entry.id
    name = file if file not in first else f"{file}-repeated"
    return ModelEntry(name, entry.title, entry.kind, BROKEN, entry.path, entry.size_bytes, problem=problem)
