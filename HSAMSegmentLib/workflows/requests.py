"""What a workflow is asked to do: plain frozen data that survives JSON, and so a process boundary and a log."""

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
    """Copy a file of weights into the store, after the checks of a download.

    Attributes:
        path: a bundle, or an official file of SAM, MobileSAM, H-SAM, SAMed or AutoSAM.
        model_id: which model of the catalog it shall be, or an id of the user's choice; empty to tell by content.
        names: values and names of the classes of an official file, where the user knows them.
        image_size: input side in pixels of an official file that does not tell it.
        overwrite: whether a stored model of the same id may be replaced.
        folder: the store's folder; empty for the user's own.
        catalog_file: another catalog than the one that comes with the program.
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
        id: the id under which it is stored.
        title: as a user reads it.
        kind: "model" or "encoder".
        notes: what was assumed about it and could be wrong.
        missing: one sentence for each file that it needs and that is not here.
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
        model: its id.
        path: the file to write; the suffix is added if there is none.
        overwrite: whether an existing file may be replaced.
        folder: the store's folder; empty for the user's own.
        catalog_file: another catalog than the one that comes with the program.
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
        path: the file that was written.
        bytes: its size.
        encoder: id of the encoder that the other computer needs in addition; empty if the file is all.
    """

    path: str
    bytes: int
    encoder: str = ""


@dataclass(frozen=True)
class FetchModelRequest:
    """Bring a model from a place of others into the store.

    Attributes:
        source: a folder with an index, http(s)://..., or hf://owner/name[@revision].
        model: its id there; empty for the only one.
        model_id: the id that it gets here; empty to keep its own.
        overwrite: whether a stored model of the same id may be replaced.
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
    """The request of a training run as versions up to 0.2 wrote it: with a folder and an id in place of the output."""
    others = {name: value for name, value in fields.items() if name not in ("folder", "model_id")}
    if not {"folder", "model_id"} <= set(fields):
        return others
    return {"output": str(Path(fields["folder"]) / f"{fields['model_id']}{BUNDLE_SUFFIX}"), **others}
