"""The job that downloads a model of the catalog into the store."""

from __future__ import annotations

from pathlib import Path

from HSAMSegmentLib.checkpoints.catalog import load_catalog
from HSAMSegmentLib.checkpoints.store import Store
from HSAMSegmentLib.jobs.events import Result
from HSAMSegmentLib.jobs.requests import DownloadRequest
from HSAMSegmentLib.jobs.run import Emit, JobContext
from HSAMSegmentLib.progress import CancelToken


def download(request: DownloadRequest, emit: Emit, cancel: CancelToken, context: JobContext) -> Result:
    """Download; the result holds the "path" of the file.

    Raises:
        DownloadError: if it does not arrive, or not as the catalog describes it.
        CheckpointError: if the catalog that the request names is wrong.
    """
    catalog = load_catalog(Path(request.catalog_file)) if request.catalog_file else None
    store = Store(request.folder or None, catalog=catalog)
    return Result({"path": str(store.download(request.model, emit, cancel))})
