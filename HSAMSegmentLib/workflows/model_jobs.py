"""Jobs for model files: download, import, fetch from shared sources, export, and verify."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from HSAMSegmentLib.errors import CheckpointError, RequestError
from HSAMSegmentLib.labels.terminology import label_set_of
from HSAMSegmentLib.runtime.atomic_files import make_folder
from HSAMSegmentLib.runtime.progress import Progress, ProgressCallback, ProgressTracker
from HSAMSegmentLib.weights.bundle import read_manifest
from HSAMSegmentLib.weights.catalog import load_catalog
from HSAMSegmentLib.weights.exporting import export_model as write_model
from HSAMSegmentLib.weights.sharing.shared_index import SharedModel, find_shared
from HSAMSegmentLib.weights.sharing.sources import open_source
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.workflows.context import Context, progress_only
from HSAMSegmentLib.workflows.requests import (
    DownloadRequest,
    ExportedModel,
    ExportModelRequest,
    FetchModelRequest,
    ImportedModel,
    ImportModelRequest,
    VerifyRequest,
)

INCOMING_FOLDER = "incoming"
"""Subfolder of the store for unfinished downloads, so that the next attempt resumes them."""

PIECE_BYTES = 16 * 2**20
_FETCHED_FRACTION = 0.9


@dataclass(frozen=True)
class DownloadResult:
    """The result of a `DownloadRequest`.

    Attributes:
        path: the file in the store.
    """

    path: str


def download_model(request: DownloadRequest, context: Context) -> DownloadResult:
    """Download a model into the store.

    Raises:
        DownloadError: if it fails, or the file does not match the catalog.
        CheckpointError: if the catalog in the request is invalid.
    """
    store = named_store(request.folder, request.catalog_file)
    return DownloadResult(str(store.download(request.model, context.progress, context.cancel)))


def import_model(request: ImportModelRequest, context: Context) -> ImportedModel:
    """Import a file. After an error or a cancel the store is unchanged.

    Raises:
        RequestError: if the file does not exist.
        CheckpointError: if it is damaged, unsafe, unknown, or not the requested one.
        OutputError: if the model already exists, or the file cannot be written.
        CancelledError: on cancel.
    """
    path = Path(request.path).expanduser()
    if not path.is_file():
        raise RequestError(f"There is no file {path}. Check the name and try again.")
    store = named_store(request.folder, request.catalog_file)
    entry = store.import_file(
        path,
        model_id=request.model_id or None,
        labels=label_set_of(dict(request.names)) if request.names else None,
        image_size=request.image_size,
        overwrite=request.overwrite,
        progress=context.progress,
        cancel=context.cancel,
    )
    missing = tuple(store.how_to_get(item, entry.title) for item in store.requirements(entry.id))
    return ImportedModel(entry.id, entry.title, entry.kind, entry.notes, missing)


def fetch_model(request: FetchModelRequest, context: Context) -> ImportedModel:
    """Fetch and import. After an error or a cancel the store is unchanged, and a partial download is kept.

    Raises:
        RequestError: if the source is invalid, or its package is not installed.
        ModelNotFoundError: if the source does not have the model.
        DownloadError: if the source is unreachable, or the download fails.
        CheckpointError: if the file is damaged, or not the one in the index.
        OutputError: if another model has this ID, or the disk is too small.
        CancelledError: on cancel.
    """
    source = open_source(request.source)
    model = find_shared(source.models(), request.model, source.place)
    store = Store(request.folder or None)
    # Each version has its own name, so that a partial download of another one is never resumed.
    folder = store.folder / INCOMING_FOLDER / model.sha256[:16]
    make_folder(folder)
    target = folder / model.file
    try:
        path = source.fetch(model, target, _until(context.progress, _FETCHED_FRACTION), context.cancel)
        _require_id(path, model)
        imported = import_model(
            ImportModelRequest(str(path), request.model_id, overwrite=request.overwrite, folder=request.folder),
            context.with_events(progress_only(_after(context.progress, _FETCHED_FRACTION)), context.cancel),
        )
        _remove(folder)
        return imported
    finally:
        _remove_if_empty(folder)


def _require_id(path: Path, model: SharedModel) -> None:
    """Ensure that a bundle has the ID in its index, before it replaces another model.

    Raises:
        CheckpointError: if it differs. The download is deleted by the next success.
    """
    found = read_manifest(path).id
    if found != model.id and model.title != model.id:
        raise CheckpointError(f"{model.file} holds the model '{found}', where the index says '{model.id}'.")


def _until(progress: ProgressCallback, end: float) -> ProgressCallback:
    return lambda inner: progress(replace(inner, fraction=end * inner.fraction))


def _after(progress: ProgressCallback, start: float) -> ProgressCallback:
    def report(inner: Progress) -> None:
        progress(replace(inner, fraction=start + (1.0 - start) * inner.fraction))

    return report


def _remove(folder: Path) -> None:
    """Delete a download and what its library left next to it."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()


def _remove_if_empty(folder: Path) -> None:
    for place in (folder, folder.parent, folder.parent.parent):
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()


def export_model(request: ExportModelRequest, context: Context) -> ExportedModel:
    """Export a model. After an error or a cancel, an existing file is unchanged.

    Raises:
        ModelNotFoundError: if the model, or an encoder needed to export it, is not on this computer.
        CheckpointError: if its file is damaged.
        OutputError: if the target exists and may not be overwritten, or cannot be written.
        CancelledError: on cancel.
    """
    store = named_store(request.folder, request.catalog_file)
    path = write_model(
        store,
        request.model,
        request.path,
        overwrite=request.overwrite,
        progress=context.progress,
        cancel=context.cancel,
    )
    return ExportedModel(str(path), path.stat().st_size, store.find(request.model).encoder)


@dataclass(frozen=True)
class VerifyResult:
    """The result of a `VerifyRequest`.

    Attributes:
        sha256: hash of the file, in hexadecimal.
        bytes: its size.
    """

    sha256: str
    bytes: int


def verify_file(request: VerifyRequest, context: Context) -> VerifyResult:
    """Hash a file.

    Raises:
        RequestError: if the file does not exist.
        CheckpointError: if the hash differs from the stated one.
    """
    path = Path(request.path)
    if not path.is_file():
        raise RequestError(f"There is no file {path}.")
    size = path.stat().st_size
    tracker = ProgressTracker(context.progress, stage=f"Checking {path.name}", steps=size // PIECE_BYTES + 1)
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for piece in iter(lambda: stream.read(PIECE_BYTES), b""):
            context.cancel.raise_if_cancelled()
            digest.update(piece)
            tracker.advance()
    if request.sha256 and digest.hexdigest() != request.sha256.lower():
        raise CheckpointError(
            f"The file {path.name} is not the one that was announced: its SHA-256 is {digest.hexdigest()}, expected "
            f"was {request.sha256}. It is damaged or another version; get it again."
        )
    return VerifyResult(digest.hexdigest(), size)


def named_store(folder: str, catalog_file: str) -> Store:
    """The store in a folder, with a catalog; empty texts stand for the user's own and the program's own.

    Raises:
        CheckpointError: if the catalog is invalid.
    """
    return Store(folder or None, catalog=load_catalog(Path(catalog_file)) if catalog_file else None)
