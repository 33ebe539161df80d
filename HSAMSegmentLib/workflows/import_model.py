"""The job that imports a file of weights into the store."""

from __future__ import annotations

from pathlib import Path

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.labels.terminology import label_set_of
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.model_transfer import ImportedModel, ImportModelRequest
from HSAMSegmentLib.workflows.stores import named_store


def run(request: ImportModelRequest, context: Context) -> ImportedModel:
    """Import a file. After an error or a cancel the store is as it was before.

    Raises:
        RequestError: if there is no such file.
        CheckpointError: if it is broken, unsafe, unknown, or not the wanted one.
        OutputError: if the model is there already, or the file cannot be written.
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
