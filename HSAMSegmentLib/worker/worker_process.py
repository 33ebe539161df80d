"""The worker process: runs jobs in sequence and keeps models loaded, until its host ends it."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import queue
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.runtime.heap import keep_freed_memory
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.runtime.threads import set_worker_priority
from HSAMSegmentLib.worker.message_file import LineReader, LineWriter
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.events import Event, ending_of, event_to_json
from HSAMSegmentLib.workflows.requests import request_from_json
from HSAMSegmentLib.workflows.run import run_to_end

COMMAND_SECONDS = 0.02
PARENT_SECONDS = 0.5


def serve(folder: str) -> int:
    """Take jobs from `folder` until the parent is gone or there was nothing to do for long; return an exit code."""
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    home = Path(folder)
    settings = json.loads((home / "settings.json").read_text(encoding="utf-8"))
    set_worker_priority()
    keep_freed_memory()
    events = LineWriter(home / "events.jsonl")
    events.write({"ready": os.getpid()})
    watcher = Watcher(LineReader(home / "commands.jsonl"), settings["parent_pid"], Path(settings["workspace"]))
    watcher.start()
    context = Context(hooks=dict(settings["hooks"]))
    while True:
        try:
            command, token = watcher.jobs.get(timeout=settings["idle_seconds"])
        except queue.Empty:
            return 0
        _run_one(command, token, events, context)


def _run_one(command: dict[str, Any], token: CancelToken, events: LineWriter, context: Context) -> None:
    def emit(event: Event) -> None:
        events.write({"job": command["job"], "event": event_to_json(event)})

    try:
        request = request_from_json(command["request"])
    except HSAMSegmentError as error:
        emit(ending_of(error))
        return
    run_to_end(request, context.with_events(emit, token))


class Watcher(threading.Thread):
    """Reads commands while a job runs, and ends this process when its parent is gone."""

    def __init__(self, commands: LineReader, parent_pid: int, workspace: Path) -> None:
        super().__init__(name="commands", daemon=True)
        self.jobs: queue.SimpleQueue[tuple[dict[str, Any], CancelToken]] = queue.SimpleQueue()
        self._commands = commands
        self._parent_pid = parent_pid
        self._workspace = workspace
        self._tokens: dict[int, CancelToken] = {}

    def run(self) -> None:
        """Check for commands often and for the parent now and then, forever."""
        parent = _process(self._parent_pid)
        next_check = 0.0
        while True:
            for command in self._commands.read():
                self._obey(command)
            if time.monotonic() >= next_check:
                if not _is_alive(parent):
                    self._leave()
                next_check = time.monotonic() + PARENT_SECONDS
            time.sleep(COMMAND_SECONDS)

    def _obey(self, command: dict[str, Any]) -> None:
        if "cancel" in command:
            self._tokens.get(command["cancel"], CancelToken()).cancel()
            return
        token = self._tokens[command["job"]] = CancelToken()
        self.jobs.put((command, token))

    def _leave(self) -> None:
        """Let a running job stop cleanly for a moment, clean up for the parent, and exit."""
        for token in self._tokens.values():
            token.cancel()
        time.sleep(1.0)
        shutil.rmtree(self._workspace, ignore_errors=True)
        os._exit(0)


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _is_alive(process: psutil.Process | None) -> bool:
    """Whether it is still the same process, and not a zombie."""
    try:
        return process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
