"""What a workflow is asked to do: plain frozen data that survives JSON, and so a process boundary and a log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Union, get_args

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.runtime.serialization import from_plain, to_plain
from HSAMSegmentLib.workflows.compare.compare_request import CompareRequest
from HSAMSegmentLib.workflows.finetune.finetune_request import FinetuneJobRequest, InspectRequest
from HSAMSegmentLib.workflows.model_transfer import ExportModelRequest, FetchModelRequest, ImportModelRequest
from HSAMSegmentLib.workflows.segment.segment_request import SegmentRequest
from HSAMSegmentLib.workflows.segment_folder.folder_request import FolderRequest
from HSAMSegmentLib.workflows.suggest.suggest_request import SuggestRequest


@dataclass(frozen=True)
class DownloadRequest:
    """Download one model of the catalog into the store.

    Attributes:
        model: catalog id.
        folder: the store's folder; empty for the user's own.
        catalog_file: another catalog than the one that comes with the program, such as that of a clinic's mirror.
    """

    kind: ClassVar[str] = "download"

    model: str
    folder: str = ""
    catalog_file: str = ""


@dataclass(frozen=True)
class VerifyRequest:
    """Compare a file with the SHA-256 that a catalog or a colleague states for it.

    Attributes:
        path: the file.
        sha256: the stated hash; empty to compute it only.
    """

    kind: ClassVar[str] = "verify"

    path: str
    sha256: str = ""


@dataclass(frozen=True)
class ProbeRequest:
    """Say which versions and devices there are, after a real small run on each device.

    Attributes:
        devices: whether to import torch and try the devices; without it only versions and free disk are told.
    """

    kind: ClassVar[str] = "probe"

    devices: bool = True


Request = Union[
    SegmentRequest,
    DownloadRequest,
    ImportModelRequest,
    ExportModelRequest,
    FetchModelRequest,
    VerifyRequest,
    ProbeRequest,
    FinetuneJobRequest,
    InspectRequest,
    CompareRequest,
    FolderRequest,
    SuggestRequest,
]
REQUESTS = {kind.kind: kind for kind in get_args(Request)}
OLD_KINDS = {"teach": "finetune"}
"""Kinds that earlier versions wrote into the folders of unfinished training runs."""


def request_to_json(request: Request) -> dict[str, Any]:
    """Plain JSON values of a request, its kind included."""
    return {"kind": request.kind, **to_plain(request)}


def request_from_json(data: dict[str, Any]) -> Request:
    """Read what `request_to_json` wrote.

    Raises:
        RequestError: if the kind is unknown or a field is missing or unknown.
    """
    fields = dict(data)
    kind = fields.pop("kind", None)
    kind = OLD_KINDS.get(kind, kind)
    if kind not in REQUESTS:
        raise RequestError(f"A job of the kind '{kind}' is unknown; this version knows {', '.join(sorted(REQUESTS))}.")
    try:
        found: Request = from_plain(REQUESTS[kind], fields)
        return found
    except TypeError as error:
        raise RequestError(f"The request for a '{kind}' job is incomplete or of another version ({error}).") from error
