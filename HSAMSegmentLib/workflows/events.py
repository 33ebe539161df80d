"""What a job tells: progress, previews, metrics, and at its end exactly one of result, failed or cancelled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Union

from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.runtime.serialization import from_plain, to_plain
from HSAMSegmentLib.workflows.finetune.validation_record import ValidationRecord


@dataclass(frozen=True)
class Preview:
    """A part of the result that can be shown already.

    Attributes:
        plane: array axis (0 for k, 1 for j, 2 for i) that the slices are cut along.
        slices: indices of the slices that are finished now.
        array_file: `.npy` file of the label array (k, j, i) in the making, wanted organs only; read it memory-mapped.
    """

    plane: int
    slices: tuple[int, ...]
    array_file: str


@dataclass(frozen=True)
class ValidationPicture:
    """A picture of a validation slice is there: reference and prediction side by side.

    Attributes:
        file: PNG file; a later picture has the same name.
        case: name of the scan.
        slice_index: index of the slice in the canonical stack.
    """

    file: str
    case: str
    slice_index: int


@dataclass(frozen=True)
class ItemDone:
    """Something became of one of the many things that a job works on; the others go on.

    Attributes:
        index: which one.
        count: how many there are.
        values: plain JSON values; what they are depends on the kind of request.
    """

    index: int
    count: int
    values: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """The job is done.

    Attributes:
        values: plain JSON values; what they are depends on the kind of request.
    """

    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """The job cannot go on.

    Attributes:
        cause: one sentence or two for the user: what, why, what to do.
        details: traceback and last log lines, for "copy details".
        error: class name of the error, or "WorkerDied".
        exit_code: what a command line returns for it.
    """

    cause: str
    details: str = ""
    error: str = "Exception"
    exit_code: int = 1


@dataclass(frozen=True)
class Cancelled:
    """The user cancelled; nothing is wrong."""


Event = Union[Progress, Preview, ValidationRecord, ValidationPicture, ItemDone, Result, Failed, Cancelled]
TERMINAL = (Result, Failed, Cancelled)
_ALL = (Progress, Preview, ValidationRecord, ValidationPicture, ItemDone, Result, Failed, Cancelled)
_KINDS: dict[str, Any] = {kind.__name__.lower(): kind for kind in _ALL}


def is_terminal(event: Event) -> bool:
    """Whether this event is the last one of its job."""
    return isinstance(event, TERMINAL)


def event_to_json(event: Event) -> dict[str, Any]:
    """Plain JSON values of an event, its kind included."""
    return {"event": type(event).__name__.lower(), **to_plain(event)}


def event_from_json(data: Any) -> Event:
    """Read what `event_to_json` made; ValueError if it is not an event."""
    try:
        fields = dict(data)
        kind: type[Event] = _KINDS[fields.pop("event")]
        return from_plain(kind, fields)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not an event: {data!r:.200}") from error
