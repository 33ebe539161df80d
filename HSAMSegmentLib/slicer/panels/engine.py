"""Drives a session with a timer on the main thread, and makes the worker when the first job starts."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import translate

from HSAMSegmentLib.errors import CancelledError, HSAMSegmentError
from HSAMSegmentLib.runtime.translation import install_translation
from HSAMSegmentLib.slicer.nodes.segment_session import BoundRequest, Done, Session, SessionEvent, Task, Written
from HSAMSegmentLib.slicer.nodes.undo import SegmentationHistory
from HSAMSegmentLib.workflows.events import Cancelled, Failed, is_terminal
from HSAMSegmentLib.workflows.requests import Request

logger = logging.getLogger(__name__)

OnEvent = Callable[[SessionEvent], None]
HOOKS = {"surfaces": "HSAMSegmentLib.slicer.nodes.segmentations.surfaces:write_surfaces"}


class Engine:
    """One job at a time for the whole application; events arrive on the main thread."""

    def __init__(self, make_session: Callable[[SegmentationHistory], Session] | None = None) -> None:
        """Prepare; nothing is started.

        Args:
            make_session: makes the session, by default one with a worker process. It is made when the first job
                starts, since what it needs (psutil) may have to be installed first.
        """
        install_translation(translate)
        self._make_session = make_session or worker_session
        self.history = SegmentationHistory()
        self._session: Session | None = None
        self._on_event: OnEvent | None = None
        self.when_idle: Callable[[], None] | None = None
        """Told after the last event of every job, since others may wait for their turn."""
        self._timer = qt.QTimer()
        self._interval_ms = 0
        self._timer.connect("timeout()", self._on_timer)

    @property
    def is_busy(self) -> bool:
        """Whether a job is running."""
        return self._session is not None and self._session.is_busy

    def is_taken_by_other(self, on_event: OnEvent) -> bool:
        """Whether a job is running that sends its events to another listener."""
        return self.is_busy and self._on_event not in (on_event, None)

    def start(self, bound: BoundRequest, on_event: OnEvent | None = None) -> None:
        """Segment in the background.

        Raises:
            RequestError: if the request cannot be taken.
        """
        self._opened().start(bound)
        self._begin(on_event)

    def start_request(self, request: Request, on_event: OnEvent | None = None) -> None:
        """Run another kind of job in the background.

        Raises:
            RequestError: if another job is running.
        """
        self._opened().start_request(request)
        self._begin(on_event)

    def start_task(self, task: Task, on_event: OnEvent | None = None) -> None:
        """Do something else with nodes in the background; its last event is a `Done`.

        Raises:
            RequestError: if another job is running, or the task's nodes cannot be used.
        """
        self._opened().start_task(task)
        self._begin(on_event)

    def run(self, bound: BoundRequest) -> Written:
        """Segment and wait, with the application alive meanwhile.

        Raises:
            HSAMSegmentError: with a sentence for the user; CancelledError after a cancel.
        """
        return self._wait(lambda on_event: self.start(bound, on_event))

    def run_task(
        self, task: Task, on_event: OnEvent | None = None, on_start: Callable[[], None] | None = None
    ) -> object:
        """Like `run`, for a task; returns what the task made of its result.

        Args:
            task: what to do.
            on_event: told what comes before the end.
            on_start: called when the task was taken.

        Raises:
            HSAMSegmentError: with a sentence for the user; CancelledError after a cancel.
        """

        def start(listener: OnEvent) -> None:
            self.start_task(task, listener)
            if on_start is not None:
                on_start()

        return self._wait(start, on_event).value

    def run_request(self, request: Request, on_event: OnEvent | None = None) -> dict[str, Any]:
        """Like `run`, for another kind of job; returns the values of its result.

        Raises:
            HSAMSegmentError: with a sentence for the user; CancelledError after a cancel.
        """
        return self._wait(lambda listener: self.start_request(request, listener), on_event).values

    @staticmethod
    def wait_until(is_done: Callable[[], bool]) -> None:
        """Keep the application alive until something is true."""
        while not is_done():
            slicer.app.processEvents()
            time.sleep(0.005)

    def _wait(self, start: Callable[[OnEvent], None], on_event: OnEvent | None = None) -> SessionEvent:
        ending: list[SessionEvent] = []

        def listen(event: SessionEvent) -> None:
            if is_last(event):
                ending.append(event)
            elif on_event is not None:
                on_event(event)

        start(listen)
        self.wait_until(lambda: bool(ending))
        if isinstance(ending[0], Cancelled):
            raise CancelledError("Cancelled.")
        if isinstance(ending[0], Failed):
            raise HSAMSegmentError(ending[0].cause)
        return ending[0]

    def cancel(self) -> None:
        """Ask the running job to stop."""
        if self._session is not None:
            self._session.cancel()

    def close(self) -> None:
        """End everything without an event."""
        self._timer.stop()
        self._on_event = None
        if self._session is not None:
            self._session.close()
            self._session = None
        self.history.forget()

    def _opened(self) -> Session:
        if self._session is None:
            self._session = self._make_session(self.history)
        return self._session

    def _begin(self, on_event: OnEvent | None) -> None:
        self._on_event = on_event
        self._keep_pace()
        self._timer.start()

    def _keep_pace(self) -> None:
        """Tick as often as the runner wants it; which runner that is may turn out when a job starts."""
        if self._interval_ms != self._session.interval_ms:
            self._interval_ms = self._session.interval_ms
            self._timer.setInterval(self._interval_ms)

    def _on_timer(self) -> None:
        events = self._session.tick()
        self._keep_pace()
        for event in events:
            listener = self._on_event
            if is_last(event):
                self._timer.stop()
                self._on_event = None
            if listener is not None:
                listener(event)
            if is_last(event) and self.when_idle is not None and not self.is_busy:
                self.when_idle()


def is_last(event: SessionEvent) -> bool:
    """Whether no event follows this one."""
    return isinstance(event, (Written, Done)) or is_terminal(event)


def worker_session(history: SegmentationHistory) -> Session:
    """A session whose jobs run in a worker process, or in a background thread where none can be started.

    What watches over processes, psutil, does not come with Slicer. All other jobs have it installed first; comparing
    needs nothing that is not there, and is soon over.
    """
    if importlib.util.find_spec("psutil") is None:
        return thread_session(history)
    from HSAMSegmentLib.runtime.owned_folders import Workspace
    from HSAMSegmentLib.worker.fallback import FallbackRunner
    from HSAMSegmentLib.worker.process_runner import ProcessRunner
    from HSAMSegmentLib.worker.runners import ThreadRunner
    from HSAMSegmentLib.workflows.context import Context

    workspace = Workspace()
    runner = FallbackRunner(ProcessRunner(workspace, hooks=HOOKS), ThreadRunner(Context(hooks=HOOKS)))
    return Session(runner, workspace, history)


def thread_session(history: SegmentationHistory) -> Session:
    """A session whose jobs run in a background thread from the first one on, to compare it with the worker process."""
    from HSAMSegmentLib.runtime.owned_folders import Workspace
    from HSAMSegmentLib.worker.runners import ThreadRunner
    from HSAMSegmentLib.workflows.context import Context

    return Session(ThreadRunner(Context(hooks=HOOKS)), Workspace(), history)
