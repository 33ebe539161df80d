"""The job that brings a model from a folder, a web address or the hub into the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.runtime.atomic_files import make_folder
from HSAMSegmentLib.runtime.progress import Progress, ProgressCallback
from HSAMSegmentLib.weights.bundle import read_manifest
from HSAMSegmentLib.weights.sharing.shared_index import SharedModel, find_shared
from HSAMSegmentLib.weights.sharing.sources import open_source
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.workflows import import_model
from HSAMSegmentLib.workflows.context import Context, progress_only
from HSAMSegmentLib.workflows.model_transfer import FetchModelRequest, ImportedModel, ImportModelRequest

INCOMING_FOLDER = "incoming"
"""Where unfinished downloads lie in the store, so that the next try goes on with them."""

_FETCHED_FRACTION = 0.9


def run(request: FetchModelRequest, context: Context) -> ImportedModel:
    """Fetch and import. After an error or a cancel the store is as it was, and what has arrived is kept.

    Raises:
        RequestError: if the place is none, or its package is not installed.
        ModelNotFoundError: if it does not have the model.
        DownloadError: if it cannot be reached, or the file does not arrive.
        CheckpointError: if the file is not the one of the index, or broken.
        OutputError: if another model has this id, or the disk is too small.
        CancelledError: on cancel.
    """
    source = open_source(request.source)
    model = find_shared(source.models(), request.model, source.place)
    store = Store(request.folder or None)
    # A name of its own for each version: the rest of another one is never continued.
    folder = store.folder / INCOMING_FOLDER / model.sha256[:16]
    make_folder(folder)
    target = folder / model.file
    try:
        path = source.fetch(model, target, _until(context.progress, _FETCHED_FRACTION), context.cancel)
        _require_id(path, model)
        imported = import_model.run(
            ImportModelRequest(str(path), request.model_id, overwrite=request.overwrite, folder=request.folder),
            context.with_events(progress_only(_after(context.progress, _FETCHED_FRACTION)), context.cancel),
        )
        _remove(folder)
        return imported
    finally:
        _remove_if_empty(folder)


def _require_id(path: Path, model: SharedModel) -> None:
    """Make sure that a bundle is called what its index says, before it takes the place of another model.

    Raises:
        CheckpointError: if it is another one. What was downloaded is removed by the next success.
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
    """Remove a download with what its library left beside it."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()


def _remove_if_empty(folder: Path) -> None:
    for place in (folder, folder.parent, folder.parent.parent):
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
