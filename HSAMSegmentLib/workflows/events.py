"""Events of a job: progress, previews, metrics, and finally exactly one of result, failed or canceled.

An error that ends a job is converted to a sentence for the user.
"""

from __future__ import annotations

import errno
import signal
import traceback
from dataclasses import dataclass, field
from typing import Any, Union

from HSAMSegmentLib.errors import CancelledError, HSAMSegmentError
from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.runtime.serialization import from_plain, to_plain
from HSAMSegmentLib.runtime.translation import tr as _
from HSAMSegmentLib.workflows.finetune.validation_record import ValidationRecord


@dataclass(frozen=True)
class Preview:
    """A part of the result that can already be shown.

    Attributes:
        plane: array axis (0 for k, 1 for j, 2 for i) across the slices.
        slices: indices of the newly finished slices.
        array_file: `.npy` file of the partial label array (k, j, i), requested organs only; read it memory-mapped.
    """

    plane: int
    slices: tuple[int, ...]
    array_file: str


@dataclass(frozen=True)
class ValidationPicture:
    """A new picture of a validation slice: reference and prediction side by side.

    Attributes:
        file: PNG file; later pictures overwrite it.
        case: name of the scan.
        slice_index: index of the slice in the canonical stack.
    """

    file: str
    case: str
    slice_index: int


@dataclass(frozen=True)
class ItemDone:
    """One of the many items of a job was processed; the others continue.

    Attributes:
        index: index of the item.
        count: number of items.
        values: plain JSON values, depending on the kind of request.
    """

    index: int
    count: int
    values: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """The job is done.

    Attributes:
        values: plain JSON values, depending on the kind of request.
    """

    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """The job cannot continue.

    Attributes:
        cause: one or two sentences for the user: what happened, why, and what to do.
        details: traceback and last log lines, for "copy details".
        error: class name of the error, or "WorkerDied".
        exit_code: exit code for a command line.
    """

    cause: str
    details: str = ""
    error: str = "Exception"
    exit_code: int = 1


@dataclass(frozen=True)
class Cancelled:
    """The user canceled; nothing is wrong."""


Event = Union[Progress, Preview, ValidationRecord, ValidationPicture, ItemDone, Result, Failed, Cancelled]
TERMINAL = (Result, Failed, Cancelled)
_ALL = (Progress, Preview, ValidationRecord, ValidationPicture, ItemDone, Result, Failed, Cancelled)
_KINDS: dict[str, Any] = {kind.__name__.lower(): kind for kind in _ALL}


def is_terminal(event: Event) -> bool:
    """Whether this event is the last one of its job."""
    return isinstance(event, TERMINAL)


def event_to_json(event: Event) -> dict[str, Any]:
    """Plain JSON values of an event, including its kind."""
    return {"event": type(event).__name__.lower(), **to_plain(event)}


def event_from_json(data: Any) -> Event:
    """Read what `event_to_json` wrote; ValueError if it is not an event."""
    try:
        fields = dict(data)
        kind: type[Event] = _KINDS[fields.pop("event")]
        return from_plain(kind, fields)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"Unreadable: {data!r:.200}") from error


def sentence_for(error: BaseException) -> str:
    """A sentence on what happened and what to do about it."""
    if isinstance(error, HSAMSegmentError):
        return str(error)
    if isinstance(error, MemoryError):
        return _(
            "The computer ran out of memory. Close other programs, or choose a smaller region of interest, and try "
            "again."
        )
    if isinstance(error, (ImportError, OSError)) and _is_about_torch(error):
        return _(
            "PyTorch cannot be loaded ({reason}). It is half installed or damaged: remove it, restart, and install it "
            "again (in Slicer: module 'PyTorch Utils')."
        ).format(reason=_first_line(error))
    if isinstance(error, ModuleNotFoundError):
        sentence = _("The Python package '{name}' is not installed; install the module's dependencies and try again.")
        return sentence.format(name=error.name)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return _("The disk is full{place}. Free some space and try again.").format(place=_where(error))
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        sentence = _("Writing or reading is not permitted{place}. Choose another folder or ask who administers it.")
        return sentence.format(place=_where(error))
    sentence = _("Something unexpected happened ({kind}: {error}). Copy the details and report them.")
    return sentence.format(kind=type(error).__name__, error=error)


def _is_about_torch(error: BaseException) -> bool:
    """Whether torch failed to load although it is installed: a part of it or one of its libraries is missing."""
    if isinstance(error, ModuleNotFoundError):
        return (error.name or "").startswith("torch.")
    frames = traceback.extract_tb(error.__traceback__)
    inside = any("/torch/" in frame.filename.replace("\\", "/") for frame in frames)
    return inside and any(frame.line and "import" in frame.line for frame in frames)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _where(error: OSError) -> str:
    return f" ({error.filename})" if error.filename else ""


def ending_of(error: BaseException) -> Failed | Cancelled:
    """The terminal event for an exception that ended a job."""
    if isinstance(error, CancelledError):
        return Cancelled()
    details = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return Failed(sentence_for(error), details, type(error).__name__, getattr(error, "exit_code", 1))


def sentence_for_exit(code: int) -> str:
    """A sentence on why a worker process ended unexpectedly, from its return code."""
    number = _signal_number(code)
    if number is None:
        sentence = _("The worker process ended by itself (exit code {code}). Nothing in the scene changed; try again.")
        return sentence.format(code=code)
    name = _signal_name(number)
    if number == 9:
        sentence = _(
            "The worker process was ended from outside (signal {number}, {name}); most often that means that the "
            "computer ran out of memory. Nothing in the scene changed. Close other programs or choose a smaller "
            "region of interest, and try again."
        )
    elif name in ("SIGTERM", "SIGINT", "SIGHUP"):
        sentence = _(
            "The worker process was ended from outside (signal {number}, {name}). Nothing in the scene changed."
        )
    else:
        sentence = _(
            "The worker process crashed (signal {number}, {name}). Nothing in the scene changed. Try again on the CPU "
            "(Advanced, Device); if it happens again, copy the details and report them."
        )
    return sentence.format(number=number, name=name)


def signal_name_of(code: int) -> str:
    """Name of the signal that ended a process, from its return code; empty without one."""
    number = _signal_number(code)
    return "" if number is None else _signal_name(number)


def _signal_number(code: int) -> int | None:
    """The signal behind a return code: -n from Python, 128 + n from a shell or launcher."""
    if code < 0:
        return -code
    return code - 128 if 128 < code < 128 + 65 else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return _("unknown signal")
