"""Run waiting jobs: each thread has a worker process, whose crash ends at most one job, never the service."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from HSAMSegmentLib.runtime.owned_folders import Workspace
from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.service.jobs import CANCELLED, DONE, FAILED, Job, JobBoard
from HSAMSegmentLib.service.settings import Limits
from HSAMSegmentLib.worker.process_runner import ProcessRunner
from HSAMSegmentLib.workflows.events import Cancelled, Event, Failed, Result, is_terminal

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.03
WAIT_SECONDS = 0.5
TRIES = 2
"""Attempts at a job whose worker dies: the first death may be another program's fault, a second one is not."""

_DIED = ("WorkerDied", "WorkerNeverReady")
_CRASHED = (
    "The process that segmented this scan ended unexpectedly, twice; most often it ran out of memory. Send a smaller "
    "part of the scan, or ask who runs the service to look at its log."
)
_TOO_LONG = "The job took longer than the {minutes:.0f} minutes that this service allows, and was stopped."
_UNEXPECTED = "Something unexpected happened while the scan was segmented. The log of the service says what."


class Dispatcher:
    """Threads that take jobs from a board until they are stopped.

    Args:
        board: board with the waiting jobs.
        workspace: folder for messages of the worker processes.
        limits: limits on the duration of a job.
        workers: number of threads, each with its own worker process.
        environment: additional environment variables of the worker processes.
        expire: called twice a second to delete what was kept too long.
    """

    def __init__(
        self,
        board: JobBoard,
        workspace: Workspace,
        limits: Limits,
        *,
        workers: int = 1,
        environment: dict[str, str] | None = None,
        expire: Sequence[Callable[[], object]] = (),
    ) -> None:
        self._board = board
        self._expire_all = expire
        self._limits = limits
        self._stopping = threading.Event()
        # Runners are created here in sequence, since a workspace numbers its folders without a lock.
        self.runners = [ProcessRunner(workspace, environment=environment) for _ in range(workers)]
        self._guard = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, args=(runner,), name=f"jobs {index}", daemon=True)
            for index, runner in enumerate(self.runners)
        ]
        self._reaper = threading.Thread(target=self._expire, name="expiry", daemon=True)

    def start(self) -> None:
        """Start running jobs."""
        for thread in (*self._threads, self._reaper):
            thread.start()

    def stop(self) -> None:
        """End all workers; running jobs are canceled."""
        self._stopping.set()
        for thread in (*self._threads, self._reaper):
            if thread.is_alive():
                thread.join(timeout=10.0)
        for runner in self.runners:
            runner.close()

    def _expire(self) -> None:
        while not self._stopping.wait(WAIT_SECONDS):
            for expire in self._expire_all:
                expire()

    def _work(self, runner: ProcessRunner) -> None:
        while not self._stopping.is_set():
            job = self._board.take(WAIT_SECONDS)
            if job is not None:
                self._run(runner, job)

    def _run(self, runner: ProcessRunner, job: Job) -> None:
        """Run a job to its end, whatever happens: a thread that dies would leave the queue unattended."""
        try:
            ending, is_late = self._with_retries(runner, job)
            self._finish(job, ending, is_late)
        except Exception:  # the boundary of a thread: the job fails, the thread continues
            logger.exception("A job could not be run")
            self._board.end(job, FAILED, error=_UNEXPECTED)

    def _with_retries(self, runner: ProcessRunner, job: Job) -> tuple[Event, bool]:
        deadline = time.monotonic() + self._limits.job_seconds
        for attempt in range(TRIES):
            ending, is_late = self._once(runner, job, deadline)
            if not (isinstance(ending, Failed) and ending.error in _DIED):
                return ending, is_late
            logger.warning("The worker died (try %d of %d): %s %s", attempt + 1, TRIES, ending.cause, ending.details)
        return Failed(_CRASHED), False

    def _once(self, runner: ProcessRunner, job: Job, deadline: float) -> tuple[Event, bool]:
        """The last event of one run, and whether it was stopped for taking too long."""
        self._board.report_progress(job, Progress(0.0, "Starting"))
        with self._guard:  # starting a worker takes a number from the workspace
            runner.start(job.request)
        while True:
            is_late = time.monotonic() > deadline
            if is_late or job.wants_cancel or self._stopping.is_set():
                runner.cancel()
            for event in runner.poll():
                if is_terminal(event):
                    return event, is_late
                if isinstance(event, Progress):
                    self._board.report_progress(job, event)
            time.sleep(POLL_SECONDS)

    def _finish(self, job: Job, ending: Event, is_late: bool) -> None:
        if isinstance(ending, Result):
            hide = hiding(str(job.folder))
            self._board.end(job, DONE, report=_public_report(ending.values.get("report") or {}, hide))
        elif isinstance(ending, Cancelled) and is_late:
            self._board.end(job, FAILED, error=_TOO_LONG.format(minutes=self._limits.job_seconds / 60))
        elif isinstance(ending, Cancelled):
            self._board.end(job, CANCELLED)
        elif isinstance(ending, Failed):
            logger.info("A job failed: %s\n%s", ending.cause, ending.details)
            is_expected = ending.error.endswith("Error") or ending.cause == _CRASHED
            self._board.end(job, FAILED, error=hiding(str(job.folder))(ending.cause) if is_expected else _UNEXPECTED)


def hiding(folder: str) -> Callable[[str], str]:
    """Return a function that removes a job's folder from messages, so that clients learn nothing about the server."""

    def hide(sentence: str) -> str:
        return sentence.replace(folder + "/", "").replace(folder + "\\", "").replace(folder, "the upload")

    return hide


def _public_report(report: dict[str, Any], hide: Callable[[str], str]) -> dict[str, Any]:
    """A report without paths of the server."""
    public = {**report, "output": None, "warnings": [hide(text) for text in report.get("warnings", [])]}
    if isinstance(report.get("input"), dict):
        notes = [hide(text) for text in report["input"].get("notes", [])]
        public["input"] = {**report["input"], "path": None, "notes": notes}
    public.pop("record", None)
    return public
