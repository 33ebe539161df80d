"""Requests for workflows: plain frozen data that survives JSON, and so a process boundary and a log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Union, get_args

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.runtime.serialization import from_plain, to_plain
from HSAMSegmentLib.training.request import BUNDLE_SUFFIX, FinetuneRequest
from HSAMSegmentLib.workflows.compare.compare_request import CompareRequest
from HSAMSegmentLib.workflows.finetune.finetune_request import InspectRequest
from HSAMSegmentLib.workflows.segment.segment_request import SegmentRequest
from HSAMSegmentLib.workflows.segment_folder.folder_request import FolderRequest
from HSAMSegmentLib.workflows.suggest.suggest_request import SuggestRequest


@dataclass(frozen=True)
class ImportModelRequest:
    """Copy a weights file into the store, after the same checks as for a download.

    Attributes:
        path: a bundle, or an official file of SAM, MobileSAM, H-SAM, SAMed or AutoSAM.
        model_id: ID of the catalog model that it is, or a custom ID; empty to recognize it.
        names: names of the class values of an official file, if the user knows them.
        image_size: input side in pixels, for an official file that does not determine it.
        overwrite: replace a stored model with the same ID.
        folder: the store's folder; empty for the user's own.
        catalog_file: another catalog than the program's.
    """

    kind: ClassVar[str] = "import model"

    path: str
    model_id: str = ""
    names: tuple[tuple[int, str], ...] = ()
    image_size: int | None = None
    overwrite: bool = False
    folder: str = ""
    catalog_file: str = ""


@dataclass(frozen=True)
class ImportedModel:
    """The result of an `ImportModelRequest`.

    Attributes:
        id: ID under which it is stored.
        title: display name.
        kind: "model" or "encoder".
        notes: assumptions about it that could be wrong.
        missing: one sentence for each missing file that it needs.
    """

    id: str
    title: str
    kind: str
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportModelRequest:
    """Write a model of the store to one file, for another computer.

    Attributes:
        model: ID of the model.
        path: output file; the suffix is appended if there is none.
        overwrite: replace an existing file.
        folder: the store's folder; empty for the user's own.
        catalog_file: another catalog than the program's.
    """

    kind: ClassVar[str] = "export model"

    model: str
    path: str
    overwrite: bool = False
    folder: str = ""
    catalog_file: str = ""


@dataclass(frozen=True)
class ExportedModel:
    """The result of an `ExportModelRequest`.

    Attributes:
        path: the written file.
        bytes: its size.
        encoder: ID of the encoder that the other computer needs in addition; empty if included.
    """

    path: str
    bytes: int
    encoder: str = ""


@dataclass(frozen=True)
class FetchModelRequest:
    """Fetch a model from a shared source into the store.

    Attributes:
        source: a folder with an index, http(s)://..., or hf://owner/name[@revision].
        model: its ID there; empty for the only one.
        model_id: its ID here; empty to keep its own.
        overwrite: replace a stored model with the same ID.
        folder: the store's folder; empty for the user's own.
    """

    kind: ClassVar[str] = "fetch model"

    source: str
    model: str = ""
    model_id: str = ""
    overwrite: bool = False
    folder: str = ""


@dataclass(frozen=True)
class DownloadRequest:
    """Download one model of the catalog into the store.

    Attributes:
        model: catalog ID.
        folder: the store's folder; empty for the user's own.
        catalog_file: another catalog than the program's, for example that of a hospital mirror.
    """

    kind: ClassVar[str] = "download"

    model: str
    folder: str = ""
    catalog_file: str = ""


@dataclass(frozen=True)
class VerifyRequest:
    """Verify a file against a SHA-256 from a catalog or a colleague.

    Attributes:
        path: the file.
        sha256: expected hash; empty to compute it only.
    """

    kind: ClassVar[str] = "verify"

    path: str
    sha256: str = ""


@dataclass(frozen=True)
class ProbeRequest:
    """Report versions and devices, after a tiny real computation on each device.

    Attributes:
        devices: import torch and test the devices; otherwise report only versions and free disk space.
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
    FinetuneRequest,
    InspectRequest,
    CompareRequest,
    FolderRequest,
    SuggestRequest,
]
REQUESTS = {kind.kind: kind for kind in get_args(Request)}
OLD_KINDS = {"teach": "finetune"}
"""Kinds that earlier versions wrote into the folders of unfinished training runs."""


def request_to_json(request: Request) -> dict[str, Any]:
    """Plain JSON values of a request, including its kind."""
    return {"kind": request.kind, **to_plain(request)}


def request_from_json(data: dict[str, Any]) -> Request:
    """Read what `request_to_json` wrote.

    Raises:
        RequestError: if the kind is unknown or a field is missing or unknown.
    """
    fields = dict(data)
    kind = fields.pop("kind", None)
    kind = OLD_KINDS.get(kind, kind)
    if kind == FinetuneRequest.kind and "output" not in fields:
        fields = _with_output(fields)
    if kind not in REQUESTS:
        raise RequestError(f"A job of the kind '{kind}' is unknown; this version knows {', '.join(sorted(REQUESTS))}.")
    try:
        found: Request = from_plain(REQUESTS[kind], fields)
        return found
    except TypeError as error:
        raise RequestError(f"The request for a '{kind}' job is incomplete or of another version ({error}).") from error


def _with_output(fields: dict[str, Any]) -> dict[str, Any]:
    """Convert a training run's request from versions up to 0.2, which has a folder and an ID instead of the output."""
    others = {name: value for name, value in fields.items() if name not in ("folder", "model_id")}
    if not {"folder", "model_id"} <= set(fields):
        return others
    return {"output": str(Path(fields["folder"]) / f"{fields['model_id']}{BUNDLE_SUFFIX}"), **others}
