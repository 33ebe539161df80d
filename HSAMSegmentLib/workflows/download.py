"""The job that downloads a model of the catalog into the store."""

from __future__ import annotations

from dataclasses import dataclass

from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.requests import DownloadRequest
from HSAMSegmentLib.workflows.stores import named_store


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
    store = named_store(request.folder, request.catalog_file)
    return DownloadResult(str(store.download(request.model, context.progress, context.cancel)))
