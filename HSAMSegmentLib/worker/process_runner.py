"""Run jobs in one persistent worker process, which keeps models loaded and can be killed without harming its host."""

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
"""`Failed.error` for a worker that ended by itself before it could take a job."""


class WorkerNotStartedError(OSError):
    """The operating system does not start the worker (policy, missing file, too many processes)."""


def worker_python() -> str:
    """The Python for the worker: Slicer's own launcher if there is one."""
    return shutil.which("PythonSlicer") or sys.executable


class ProcessRunner:
    """Communicates with the worker through two files of JSON lines in a private folder; never blocks.

    The worker starts with the first job, stays for later ones, and exits by itself when this process is gone or after
    `IDLE_SECONDS` without a job.
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
        """Store how to start the worker.

        Args:
            workspace: provides the folder for the worker's files.
            hooks: functions ("module:function") that jobs may need but cannot import themselves.
            python: interpreter of the worker, by default `worker_python()`.
            environment: additional environment variables.
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
        """Whether a job was started whose last event has not been polled yet."""
        return self._running

    @property
    def python(self) -> str:
        """The interpreter of the worker."""
        return self._python

    @property
    def worker_pid(self) -> int | None:
        """Process ID of the worker; None without one."""
        return self._worker.pid if self._worker is not None else None

    def start(self, request: Request) -> None:
        """Send the job to the worker, starting it if necessary.

        Raises:
            RequestError: while another job runs.
            WorkerNotStartedError: if the worker cannot be started.
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
        """Ask the worker to stop the job; if it does not respond in time, `poll` kills it."""
        if self._running and self._kill_at is None and self._worker is not None:
            self._worker.send({"cancel": self._job})
            self._kill_at = time.monotonic() + CANCEL_GRACE_SECONDS

    def poll(self) -> list[Event]:
        """Events since the last call; the death of the worker ends the job with a sentence."""
        if not self._running or self._worker is None:
            return []
        code = self._worker.return_code()  # checked before reading, so that the output of a dead worker is complete
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
        """End the worker and its descendants; may be called more than once."""
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
        """Process ID of the computing process, which differs from the started one below a launcher."""
        return self._inner_pid or self._process.pid

    @property
    def was_ready(self) -> bool:
        """Whether it got far enough to take a job."""
        return self._inner_pid is not None

    def return_code(self) -> int | None:
        """Return code of the process; None while it is alive."""
        return self._process.poll()

    def is_fresh(self) -> bool:
        """Whether it is alive and not about to exit for lack of work."""
        return self.return_code() is None and time.monotonic() - self._last_sign < IDLE_SECONDS / 2

    def send(self, data: dict[str, Any]) -> None:
        """Append a command."""
        self._last_sign = time.monotonic()
        self._commands.write(data)

    def receive(self) -> list[tuple[int, Event]]:
        """New events with their job numbers."""
        received = []
        for data in self._events.read():
            self._last_sign = time.monotonic()
            if "ready" in data:
                self._inner_pid = int(data["ready"])
            else:
                received.append((int(data["job"]), event_from_json(data["event"])))
        return received

    def forget(self) -> None:
        """Delete the worker's output for a finished job, whose previews and reports now belong to the host."""
        self._events.clear()

    def kill(self) -> None:
        """Kill the whole process tree: killing a launcher alone would leave its child alive."""
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
    """Options that shield the worker from Ctrl-C in a terminal and suppress a console window on Windows."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}
