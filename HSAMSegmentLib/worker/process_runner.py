"""Runs jobs in one persistent worker process, which keeps models loaded and can be killed without harm to its host."""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import psutil

from HSAMSegmentLib.runtime.owned_folders import Workspace
from HSAMSegmentLib.runtime.threads import limit_spinning
from HSAMSegmentLib.worker.message_file import LineReader, LineWriter, last_lines
from HSAMSegmentLib.worker.runners import CANCEL_GRACE_SECONDS, refuse_second_job
from HSAMSegmentLib.workflows.events import (
    Cancelled,
    Event,
    Failed,
    event_from_json,
    is_terminal,
    sentence_for_exit,
    signal_name_of,
)
from HSAMSegmentLib.workflows.requests import Request, request_to_json

logger = logging.getLogger(__name__)

START_SCRIPT = Path(__file__).with_name("start_worker.py")
IDLE_SECONDS = 900.0


NEVER_READY = "WorkerNeverReady"
"""What `Failed.error` says of a worker that ended by itself before it could take a job."""


class WorkerNotStartedError(OSError):
    """The operating system does not start the worker's program (policy, missing file, too many processes)."""


def worker_python() -> str:
    """The Python to run the worker with: Slicer's own launcher where there is one."""
    return shutil.which("PythonSlicer") or sys.executable


class ProcessRunner:
    """Talks to the worker through two files of JSON lines in a private folder; never blocks.

    The worker starts with the first job, stays for the next ones, and ends by itself when this process is gone or
    when it had nothing to do for `IDLE_SECONDS`.
    """

    poll_interval_ms = 30

    def __init__(
        self,
        workspace: Workspace,
        *,
        hooks: dict[str, str] | None = None,
        python: str | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Remember how to start the worker.

        Args:
            workspace: where the worker's files live.
            hooks: functions ("module:function") that jobs may need and may not import themselves.
            python: interpreter of the worker, by default `worker_python()`.
            environment: variables set in addition to this process's own.
        """
        self._workspace = workspace
        self._hooks = hooks or {}
        self._python = python or worker_python()
        self._environment = {**os.environ, **(environment or {})}
        limit_spinning(self._environment)
        self._worker: Worker | None = None
        self._job = 0
        self._running = False
        self._kill_at: float | None = None
        atexit.register(self.close)

    @property
    def is_running(self) -> bool:
        """Whether a job has started whose last event was not polled yet."""
        return self._running

    @property
    def python(self) -> str:
        """The interpreter of the worker."""
        return self._python

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker, None while there is none."""
        return self._worker.pid if self._worker is not None else None

    def start(self, request: Request) -> None:
        """Send the job to the worker, which is started if need be.

        Raises:
            RequestError: while another job runs.
            WorkerNotStartedError: if the worker's program cannot be started.
            OSError: if its files cannot be written.
        """
        refuse_second_job(self)
        if self._worker is None or not self._worker.is_fresh():
            self._drop_worker()
            self._worker = Worker(self._python, self._workspace, self._hooks, self._environment)
        self._job += 1
        self._kill_at = None
        self._worker.send({"job": self._job, "request": request_to_json(request)})
        self._running = True

    def cancel(self) -> None:
        """Ask the worker to stop the job; one that does not answer in time is killed by `poll`."""
        if self._running and self._kill_at is None and self._worker is not None:
            self._worker.send({"cancel": self._job})
            self._kill_at = time.monotonic() + CANCEL_GRACE_SECONDS

    def poll(self) -> list[Event]:
        """Events since the last call; a worker that died ends the job with a sentence."""
        if not self._running or self._worker is None:
            return []
        code = self._worker.return_code()  # asked before reading: what a dead worker wrote is complete
        events = [event for job, event in self._worker.receive() if job == self._job]
        if not any(is_terminal(event) for event in events):
            if self._kill_at is not None and (code is not None or time.monotonic() > self._kill_at):
                self._drop_worker()
                events.append(Cancelled())
            elif code is not None:
                events.append(self._obituary(code))
                self._drop_worker()
        self._running = not any(is_terminal(event) for event in events)
        if not self._running and self._worker is not None:
            self._worker.forget()
        return events

    def close(self) -> None:
        """End the worker with all of its children; may be called more than once."""
        atexit.unregister(self.close)
        self._drop_worker()
        self._running = False

    def _obituary(self, code: int) -> Failed:
        worker = cast(Worker, self._worker)
        cause = sentence_for_exit(code)
        logger.warning("%s", cause)
        by_itself = code > 0 and not signal_name_of(code)
        error = NEVER_READY if by_itself and not worker.was_ready else "WorkerDied"
        return Failed(cause, last_lines(worker.log), error)

    def _drop_worker(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker = None


class Worker:
    """One worker process and its two files."""

    def __init__(self, python: str, workspace: Workspace, hooks: dict[str, str], environment: dict[str, str]) -> None:
        self.folder = workspace.job_folder()
        self.log = self.folder / "log.txt"
        self._commands = LineWriter(self.folder / "commands.jsonl")
        self._events = LineReader(self.folder / "events.jsonl")
        self._inner_pid: int | None = None
        self._last_sign = time.monotonic()
        settings = {
            "parent_pid": os.getpid(),
            "hooks": hooks,
            "idle_seconds": IDLE_SECONDS,
            "workspace": str(workspace.folder),
        }
        (self.folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        self._process = self._start(python, environment)

    def _start(self, python: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as log:
            try:
                return subprocess.Popen(
                    [python, "-u", str(START_SCRIPT), str(self.folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    **_detached(),
                )
            except OSError as error:
                raise WorkerNotStartedError(error.errno, error.strerror, python) from error

    @property
    def pid(self) -> int:
        """The process that computes: below a launcher it is not the one that was started."""
        return self._inner_pid or self._process.pid

    @property
    def was_ready(self) -> bool:
        """Whether it came so far that it could take a job."""
        return self._inner_pid is not None

    def return_code(self) -> int | None:
        """Return code of the process, None while it lives."""
        return self._process.poll()

    def is_fresh(self) -> bool:
        """Whether it lives and is not about to leave for want of work."""
        return self.return_code() is None and time.monotonic() - self._last_sign < IDLE_SECONDS / 2

    def send(self, data: dict[str, Any]) -> None:
        """Append a command."""
        self._last_sign = time.monotonic()
        self._commands.write(data)

    def receive(self) -> list[tuple[int, Event]]:
        """New events with the number of their job."""
        received = []
        for data in self._events.read():
            self._last_sign = time.monotonic()
            if "ready" in data:
                self._inner_pid = int(data["ready"])
            else:
                received.append((int(data["job"]), event_from_json(data["event"])))
        return received

    def forget(self) -> None:
        """Delete what the worker told of a job that ended: previews and reports are the host's from then on."""
        self._events.clear()

    def kill(self) -> None:
        """End the whole process tree: killing a launcher alone would leave its child alive."""
        self.receive()
        processes = _tree(self._process.pid)
        if self._inner_pid is not None and self._process.poll() is None:
            processes += _tree(self._inner_pid)
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self._process.wait(timeout=5)
        self._commands.close()
        self._events.close()


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return []


def _detached() -> dict[str, Any]:
    """Options that keep Ctrl-C in a terminal, and a console window on Windows, away from the worker."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}
