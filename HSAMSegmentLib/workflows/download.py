"""The job that downloads a model of the catalog into the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from HSAMSegmentLib.weights.catalog import load_catalog
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.requests import DownloadRequest


@dataclass(frozen=True)
class DownloadResult:
    """The result of a `DownloadRequest`.

    Attributes:
        path: the file in the store.
    """

    path: str


def run(request: DownloadRequest, context: Context) -> DownloadResult:
    """Download a model into the store.

    Raises:
        DownloadError: if it does not arrive, or not as the catalog describes it.
        CheckpointError: if the catalog that the request names is wrong.
    """
    catalog = load_catalog(Path(request.catalog_file)) if request.catalog_file else None
    store = Store(request.folder or None, catalog=catalog)
    return DownloadResult(str(store.download(request.model, context.progress, context.cancel)))
