"""The job that downloads a model of the catalog into the store."""

from __future__ import annotations

from pathlib import Path

from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.weights.catalog import load_catalog
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.workflows.events import Result
from HSAMSegmentLib.workflows.requests import DownloadRequest
from HSAMSegmentLib.workflows.run import Emit, JobContext


def download(request: DownloadRequest, emit: Emit, cancel: CancelToken, context: JobContext) -> Result:
    """Download; the result holds the "path" of the file.

    Raises:
        DownloadError: if it does not arrive, or not as the catalog describes it.
        CheckpointError: if the catalog that the request names is wrong.
    """
    catalog = load_catalog(Path(request.catalog_file)) if request.catalog_file else None
    store = Store(request.folder or None, catalog=catalog)
    return Result({"path": str(store.download(request.model, emit, cancel))})
