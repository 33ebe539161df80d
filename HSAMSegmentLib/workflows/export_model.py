"""The job that writes a model of the store to one file."""

from __future__ import annotations

from HSAMSegmentLib.weights.exporting import export_model
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.model_transfer import ExportedModel, ExportModelRequest
from HSAMSegmentLib.workflows.stores import named_store


def run(request: ExportModelRequest, context: Context) -> ExportedModel:
    """Export a model. After an error or a cancel, what was under the name before is still there.

    Raises:
        ModelNotFoundError: if the model, or an encoder that is needed to export it, is not on this computer.
        CheckpointError: if its file is broken.
        OutputError: if the target exists and may not be overwritten, or cannot be written.
        CancelledError: on cancel.
    """
    store = named_store(request.folder, request.catalog_file)
    path = export_model(
        store,
        request.model,
        request.path,
        overwrite=request.overwrite,
        progress=context.progress,
        cancel=context.cancel,
    )
    return ExportedModel(str(path), path.stat().st_size, store.find(request.model).encoder)
