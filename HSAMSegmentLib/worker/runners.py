"""Run jobs inline or in a background thread. The worker process is in `process_runner`.

All runners have the same interface and are used from one thread, in Slicer the main one, where a timer calls `poll`.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Protocol

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.runtime.translation import tr as _
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.events import Cancelled, Event, is_terminal
from HSAMSegmentLib.workflows.requests import Request
from HSAMSegmentLib.workflows.run import run_to_end

CANCEL_GRACE_SECONDS = 0.7


class Runner(Protocol):
    """Runs one job at a time."""

    poll_interval_ms: int

    @property
    def is_running(self) -> bool:
        """Whether a job was started whose last event `poll` has not returned yet."""

    def start(self, request: Request) -> None:
        """Start a job; RequestError while another one runs."""

    def cancel(self) -> None:
        """Ask the job to stop; `poll` returns its last event within a second. Does nothing without a job."""

    def poll(self) -> list[Event]:
        """Events since the last call, oldest first; returns immediately."""

    def close(self) -> None:
        """End the job and free all resources; the runner cannot be used afterwards."""


class InlineRunner:
    """Runs the job inside `start`; `poll` then returns all of its events. For scripts and tests."""

    poll_interval_ms = 10

    def __init__(self, context: Context | None = None) -> None:
        self._context = context or Context()
        self._events: list[Event] = []

    @property
    def is_running(self) -> bool:
        """Whether there are events to poll."""
        return bool(self._events)

    def start(self, request: Request) -> None:
        """Run the job to its end."""
        refuse_second_job(self)
        run_to_end(request, self._context.with_events(self._events.append, CancelToken()))

    def cancel(self) -> None:
        """Nothing to cancel: the job is finished when `start` returns."""

    def poll(self) -> list[Event]:
        """All events of the job."""
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Unload the models."""
        self._context.shared.clear()


class ThreadRunner:
    """Runs the job in a background thread of this process.

    In Slicer the idle main loop keeps the GIL, so that Python threads starve: `poll`, called by a timer on the main
    thread, sleeps briefly to yield the GIL to the job. For hosts in which no process can be started.
    """

    poll_interval_ms = 10

    def __init__(self, context: Context | None = None, *, yield_seconds: float = 0.004) -> None:
        """`yield_seconds` is how long each `poll` yields to a running job."""
        self._context = context or Context()
        self._yield_seconds = yield_seconds
        self._events: queue.SimpleQueue[Event] | None = None
        self._token = CancelToken()
        self._give_up_at: float | None = None

    @property
    def is_running(self) -> bool:
        """Whether a job was started whose last event has not been polled yet."""
        return self._events is not None

    def start(self, request: Request) -> None:
        """Start the thread."""
        refuse_second_job(self)
        self._events, self._token, self._give_up_at = queue.SimpleQueue(), CancelToken(), None
        context = self._context.with_events(self._events.put, self._token)
        threading.Thread(target=run_to_end, args=(request, context), name="HSAMSegment job", daemon=True).start()

    def cancel(self) -> None:
        """Ask the job to stop; if it does not respond in time, it is abandoned and its result dropped."""
        if self._events is not None and self._give_up_at is None:
            self._token.cancel()
            self._give_up_at = time.monotonic() + CANCEL_GRACE_SECONDS

    def poll(self) -> list[Event]:
        """Events since the last call, after yielding briefly to the job."""
        if self._events is None:
            return []
        time.sleep(self._yield_seconds)
        events: list[Event] = []
        while not self._events.empty():
            events.append(self._events.get())
        overdue = self._give_up_at is not None and time.monotonic() > self._give_up_at
        if overdue and not any(is_terminal(event) for event in events):
            events.append(Cancelled())
        if any(is_terminal(event) for event in events):
            self._events = None
        return events

    def close(self) -> None:
        """Cancel and abandon the job."""
        self.cancel()
        self._events = None


def refuse_second_job(runner: Runner) -> None:
    """Raise if the runner is busy.

    Raises:
        RequestError: always with the same sentence.
    """
    if runner.is_running:
        raise RequestError(_("Another job is running; wait for its end or cancel it first."))
