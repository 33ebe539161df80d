"""Runs jobs in a worker process; where no process can be started, in a background thread, and says so."""

from __future__ import annotations

import logging
from dataclasses import replace

from HSAMSegmentLib.jobs.events import Event, Result
from HSAMSegmentLib.jobs.process_runner import ProcessRunner, WorkerNotStartedError
from HSAMSegmentLib.jobs.requests import Request
from HSAMSegmentLib.jobs.runners import ThreadRunner

logger = logging.getLogger(__name__)

SENTENCE = (
    "No worker process could be started ({reason}), so the job ran inside of this program: it may have felt slow "
    "meanwhile."
)


class FallbackRunner:
    """A runner of two; it changes over at the first job whose process cannot be started, and stays there."""

    def __init__(self, process: ProcessRunner, thread: ThreadRunner) -> None:
        self._runner: ProcessRunner | ThreadRunner = process
        self._thread = thread
        self._note = ""

    @property
    def poll_interval_ms(self) -> int:
        """How often `poll` wants to be called."""
        return self._runner.poll_interval_ms

    @property
    def is_running(self) -> bool:
        """Whether a job has started whose last event was not polled yet."""
        return self._runner.is_running

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker, None where there is none."""
        return self._runner.worker_pid if isinstance(self._runner, ProcessRunner) else None

    def start(self, request: Request) -> None:
        """Start a job, in a process if that is possible.

        Raises:
            RequestError: while another job runs.
            OSError: if the files for the worker cannot be written.
        """
        try:
            self._runner.start(request)
        except WorkerNotStartedError as error:
            logger.warning("%s", error)
            self._note = SENTENCE.format(reason=error)
            self._runner.close()
            self._runner = self._thread
            self._runner.start(request)

    def cancel(self) -> None:
        """Ask the job to stop."""
        self._runner.cancel()

    def poll(self) -> list[Event]:
        """Events since the last call; a result with warnings also says where the job ran."""
        return [self._with_note(event) for event in self._runner.poll()]

    def close(self) -> None:
        """End the job and the worker."""
        self._runner.close()

    def _with_note(self, event: Event) -> Event:
        if not self._note or not isinstance(event, Result) or "warnings" not in event.values:
            return event
        return replace(event, values={**event.values, "warnings": [*event.values["warnings"], self._note]})
