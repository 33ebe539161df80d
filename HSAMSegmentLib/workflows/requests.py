"""What a job is asked to do: plain frozen data that survives JSON, and so a process boundary and a log."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Union, get_args

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.inference.options import PostprocessOptions, SegmentOptions
from HSAMSegmentLib.workflows.compare.compare_request import CompareRequest
from HSAMSegmentLib.workflows.finetune.finetune_request import InspectRequest, TeachJobRequest
from HSAMSegmentLib.workflows.inputs import VolumeInput, geometry_from_json
from HSAMSegmentLib.workflows.segment.folder_request import FolderRequest

__all__ = [
    "CompareRequest",
    "DownloadRequest",
    "FolderRequest",
    "InspectRequest",
    "ProbeRequest",
    "Request",
    "SegmentRequest",
    "TeachJobRequest",
    "VerifyRequest",
    "VolumeInput",
    "geometry_from_json",
    "request_from_json",
    "request_to_json",
]


@dataclass(frozen=True)
class SegmentRequest:
    """Segment the organs of one scan.

    Attributes:
        input: the scan.
        model: model id, or path of a file of weights.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        options: organs, region, precision, post-processing.
        output_folder: where the label array and the surfaces go.
        surfaces: also compute a closed surface per organ, where the worker can.
        preview: tell finished slices while the job runs.
    """

    kind: ClassVar[str] = "segment"

    input: VolumeInput
    model: str
    output_folder: str
    device: str = "auto"
    options: SegmentOptions = field(default_factory=SegmentOptions)
    surfaces: bool = False
    preview: bool = False

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SegmentRequest:
        """Read the plain JSON values of a request."""
        fields = {"input": VolumeInput.from_json(data["input"]), "options": _options_from_json(data["options"])}
        return cls(**{**data, **fields})


def _options_from_json(data: dict[str, Any]) -> SegmentOptions:
    roi = data["roi"]
    fields = {
        "organs": tuple(data["organs"]),
        "roi": None if roi is None else tuple(int(bound) for bound in roi),
        "postprocess": PostprocessOptions(**data["postprocess"]),
    }
    return SegmentOptions(**{**data, **fields})


class _PlainRequest:
    """A request whose fields are plain JSON values."""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> _PlainRequest:
        """Read the plain JSON values of a request."""
        return cls(**data)


@dataclass(frozen=True)
class DownloadRequest(_PlainRequest):
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
class VerifyRequest(_PlainRequest):
    """Compare a file with the SHA-256 that a catalog or a colleague states for it.

    Attributes:
        path: the file.
        sha256: the stated hash; empty to compute it only.
    """

    kind: ClassVar[str] = "verify"

    path: str
    sha256: str = ""


@dataclass(frozen=True)
class ProbeRequest(_PlainRequest):
    """Say which versions and devices there are, after a real small run on each device.

    Attributes:
        devices: whether to import torch and try the devices; without it only versions and free disk are told.
    """

    kind: ClassVar[str] = "probe"

    devices: bool = True


Request = Union[
    SegmentRequest,
    DownloadRequest,
    VerifyRequest,
    ProbeRequest,
    TeachJobRequest,
    InspectRequest,
    CompareRequest,
    FolderRequest,
]
REQUESTS = {kind.kind: kind for kind in get_args(Request)}


def request_to_json(request: Request) -> dict[str, Any]:
    """Plain JSON values of a request, its kind included."""
    return {"kind": request.kind, **asdict(request)}


def request_from_json(data: dict[str, Any]) -> Request:
    """Read what `request_to_json` wrote.

    Raises:
        RequestError: if the kind is unknown or a field is missing or unknown.
    """
    fields = dict(data)
    kind = fields.pop("kind", None)
    if kind not in REQUESTS:
        raise RequestError(f"A job of the kind '{kind}' is unknown; this version knows {', '.join(sorted(REQUESTS))}.")
    try:
        return REQUESTS[kind].from_json(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(f"The request for a '{kind}' job is incomplete or of another version ({error}).") from error
