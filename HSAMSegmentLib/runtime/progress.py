"""Progress and cancellation for everything that takes longer than a moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from HSAMSegmentLib.errors import CancelledError


@dataclass(frozen=True)
class Progress:
    """Progress of a job.

    Attributes:
        fraction: completed part of the whole job, 0 to 1.
        stage: displayed description of the current work ("Segmenting slices").
        detail: a short addition ("slice 12 of 60"), may be empty.
        eta_seconds: estimated remaining time, or None while unknown.
    """

    fraction: float
    stage: str
    detail: str = ""
    eta_seconds: float | None = None


Found = TypeVar("Found")

_LOOK_SECONDS = 0.05
_left_behind: list[threading.Thread] = []

ProgressCallback = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """Ignore a progress report: the default callback."""


class CancelToken:
    """A flag that one thread sets and another checks between steps."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask the work to stop; may be called from any thread, and repeatedly."""
        self._event.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether the work was asked to stop."""
        return self._event.is_set()

    def raise_if_cancelled(self) -> None:
        """Stop the work here if canceled.

        Raises:
            CancelledError: if `cancel` was called.
        """
        if self._event.is_set():
            raise CancelledError("Cancelled.")


def interruptible(work: Callable[[], Found], cancel: CancelToken) -> Found:
    """Run work that cannot check a token itself (one long library call), and abandon it on a cancel.

    Args:
        work: runs in its own thread. When abandoned it continues to its end, so it must not change anything that is
            used afterwards.
        cancel: checked meanwhile.

    Returns:
        The return value of the work.

    Raises:
        CancelledError: on cancel; otherwise whatever the work raises.
    """
    found: list[Found] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # noqa: BLE001 - handed on to the thread that waits for it
            raised.append(error)

    thread = threading.Thread(target=run, name=f"{work}", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_LOOK_SECONDS)
            if thread.is_alive():
                cancel.raise_if_cancelled()
    finally:  # a second Ctrl-C ends the wait, too
        if thread.is_alive():
            _left_behind.append(thread)
    if raised:
        raise raised[0]
    return found[0]


def is_work_left_behind() -> bool:
    """Whether abandoned work is still running; the program should then exit without waiting for its threads."""
    return any(thread.is_alive() for thread in _left_behind)


class ProgressTracker:
    """Turns finished steps of known cost into `Progress` reports with an ETA.

    The estimate is elapsed time over completed work, so it needs no calibration; it is withheld for the first 2 % of
    the work, when it would be noise.
    """

    def __init__(
        self,
        report: ProgressCallback,
        *,
        stage: str,
        steps: int,
        start_fraction: float = 0.0,
        end_fraction: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._report = report
        self._stage = stage
        self._steps = max(int(steps), 1)
        self._start_fraction = start_fraction
        self._span = end_fraction - start_fraction
        self._clock = clock
        self._started = clock()
        self._done = 0

    def advance(self, steps: int = 1, detail: str = "") -> None:
        """Report that `steps` more steps are finished."""
        self._done = min(self._done + steps, self._steps)
        part = self._done / self._steps
        elapsed = self._clock() - self._started
        eta = elapsed * (1.0 - part) / part if part >= 0.02 else None
        self._report(Progress(self._start_fraction + self._span * part, self._stage, detail, eta))
