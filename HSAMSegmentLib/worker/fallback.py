"""Run jobs in a worker process or, if none can be started, in a background thread with a warning.

Whether PyTorch loads is tested in a separate process, since a damaged one may crash the program that imports it.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from dataclasses import replace

from HSAMSegmentLib.errors import DeviceError, HSAMSegmentError
from HSAMSegmentLib.runtime.translation import tr as _
from HSAMSegmentLib.worker.process_runner import NEVER_READY, ProcessRunner, WorkerNotStartedError
from HSAMSegmentLib.worker.runners import ThreadRunner
from HSAMSegmentLib.workflows.events import Event, Failed, Result, signal_name_of
from HSAMSegmentLib.workflows.requests import Request

PROBE_SECONDS = 120.0
_SCRIPT = "print('alive', flush=True); import torch; torch.ones(2).sum(); print('fine', flush=True)"

logger = logging.getLogger(__name__)


def torch_crash(python: str) -> str:
    """A sentence on why PyTorch must not be imported here; empty if it loads, or if that is unknown.

    Args:
        python: interpreter to test; the answer is unknown if it cannot be started.
    """
    try:
        done = subprocess.run(
            [python, "-c", _SCRIPT],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    said = done.stdout.split()
    if "alive" not in said or "fine" in said:
        return ""
    lines = done.stderr.strip().splitlines()
    reason = signal_name_of(done.returncode) or (lines[-1] if lines else f"exit code {done.returncode}")
    return _(
        "PyTorch cannot be loaded ({reason}), and loading it could end this program. Remove it, restart, and install "
        "it again (in Slicer: module 'PyTorch Utils')."
    ).format(reason=reason)


class FallbackRunner:
    """Switches permanently from a process to a thread at the first job whose process does not start."""

    def __init__(
        self, process: ProcessRunner, thread: ThreadRunner, *, torch_problem: Callable[[str], str] = torch_crash
    ) -> None:
        """Start with the process.

        Args:
            process: runs the jobs if it can.
            thread: runs them otherwise.
            torch_problem: called with the process's interpreter before anything runs in this program.
        """
        self._process = process
        self._runner: ProcessRunner | ThreadRunner = process
        self._thread = thread
        self._torch_problem = torch_problem
        self._request: Request | None = None
        self._cancelled = False
        self._note = ""

    @property
    def poll_interval_ms(self) -> int:
        """Interval at which `poll` should be called."""
        return self._runner.poll_interval_ms

    @property
    def is_running(self) -> bool:
        """Whether a job was started whose last event has not been polled yet."""
        return self._runner.is_running

    @property
    def worker_pid(self) -> int | None:
        """Process ID of the worker; None without one."""
        return self._runner.worker_pid if isinstance(self._runner, ProcessRunner) else None

    def start(self, request: Request) -> None:
        """Start a job, in a process if possible.

        Raises:
            RequestError: while another job runs.
            DeviceError: if no process can be started, and PyTorch would crash in this one.
            OSError: if the files for the worker cannot be written.
        """
        self._request, self._cancelled = request, False
        try:
            self._runner.start(request)
        except WorkerNotStartedError as error:
            self._change_over(str(error))

    def cancel(self) -> None:
        """Ask the job to stop."""
        self._cancelled = True
        self._runner.cancel()

    def poll(self) -> list[Event]:
        """Events since the last call; a result with warnings also says where the job ran."""
        events = self._runner.poll()
        if events and isinstance(events[-1], Failed) and events[-1].error == NEVER_READY and not self._cancelled:
            return events[:-1] + self._begin_again(events[-1])
        return [self._with_note(event) for event in events]

    def close(self) -> None:
        """End the job and the worker."""
        self._runner.close()

    def _begin_again(self, failed: Failed) -> list[Event]:
        """Pass a job that the process never took to the thread."""
        try:
            self._change_over(failed.cause)
        except HSAMSegmentError as error:
            return [Failed(str(error), failed.details, type(error).__name__, error.exit_code)]
        return []

    def _change_over(self, reason: str) -> None:
        logger.warning("%s", reason)
        problem = self._torch_problem(self._process.python)
        if problem:
            raise DeviceError(problem)
        self._note = _(
            "No worker process could be started ({reason}), so the job ran inside of this program: it may have felt "
            "slow meanwhile."
        ).format(reason=reason.rstrip("."))
        self._runner.close()
        self._runner = self._thread
        if self._request is not None:
            self._runner.start(self._request)

    def _with_note(self, event: Event) -> Event:
        if not self._note or not isinstance(event, Result) or "warnings" not in event.values:
            return event
        return replace(event, values={**event.values, "warnings": [*event.values["warnings"], self._note]})
