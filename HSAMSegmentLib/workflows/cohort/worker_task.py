"""The task of a worker: one scan at a time, keeping the model. No torch, since the scheduler imports it."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distributed import get_worker

from HSAMSegmentLib.errors import (
    CancelledError,
    CheckpointError,
    DeviceError,
    OutputError,
    RequestError,
    VolumeError,
)
from HSAMSegmentLib.io.scan_folder import Scan
from HSAMSegmentLib.runtime.heap import keep_freed_memory_of_dask
from HSAMSegmentLib.runtime.owned_folders import PREFIX
from HSAMSegmentLib.runtime.progress import CancelToken, ignore_progress
from HSAMSegmentLib.workflows.cohort.claims import Claims
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.segment_folder.folder_request import FolderRequest
from HSAMSegmentLib.workflows.segment_folder.scan_outcome import FAILED, ScanOutcome

logger = logging.getLogger("distributed.worker.hsamsegment")
"""Logged with the worker's other messages: in its log on a cluster, silent on this computer."""

BY_SCAN, BY_WORKER, UNCLEAR = "scan", "worker", "unclear"


@dataclass(frozen=True)
class ScanTask:
    """One scan for a worker.

    Attributes:
        request: request of the whole run, with paths of the computer that started it.
        scan: the scan.
        run: ID of the run.
        beacon: a file of the run in the output folder; workers that see it write their results there themselves.
    """

    request: FolderRequest
    scan: Scan
    run: str
    beacon: str


@dataclass(frozen=True)
class ScanAnswer:
    """The answer of a worker.

    Attributes:
        outcome: outcome of the scan.
        fault: for a failed scan, the cause: `BY_SCAN`, `BY_WORKER` (its disk, its models) or `UNCLEAR`.
        files: paths below the output folder and contents, if the worker does not see that folder.
        exit_code: exit code of the error of a failed scan.
        address: address of the worker.
    """

    outcome: ScanOutcome
    fault: str = ""
    files: tuple[tuple[str, bytes], ...] = ()
    exit_code: int = 0
    address: str = ""


_one_at_a_time = threading.Lock()
"""A worker segments one scan at a time, with all of its threads given to torch."""

_shared: dict[str, Any] = {}
_tokens: dict[str, CancelToken] = {}


def stop_run(run: str) -> None:
    """Stop this worker's work for a run, within a second."""
    _tokens.setdefault(run, CancelToken()).cancel()


def sees_file(path: str) -> bool:
    """Whether this worker sees a file of the computer that started the run."""
    return Path(path).is_file()


def segment_task(task: ScanTask) -> ScanAnswer:
    """Segment one scan on a Dask worker.

    Raises:
        CancelledError: after `stop_run`.
    """
    with _one_at_a_time:
        if not _shared:
            keep_freed_memory_of_dask()
        worker = get_worker()
        context = Context(cancel=_tokens.setdefault(task.run, CancelToken()), shared=_shared)
        context.cancel.raise_if_cancelled()
        task = replace(task, request=_pinned(task.request, worker.state.nthreads))
        began = time.perf_counter()
        do = _in_place if Path(task.beacon).is_file() else _to_send_back
        answer = do(task, context)
        outcome = replace(answer.outcome, seconds=time.perf_counter() - began, worker=str(worker.name))
        return replace(answer, outcome=outcome, address=worker.contact_address or "")


def _pinned(request: FolderRequest, threads: int) -> FolderRequest:
    """Use as many CPU threads as the worker was given, unless the request names a number."""
    options = request.options
    return request if options.threads else replace(request, options=replace(options, threads=threads))


def _in_place(task: ScanTask, context: Context) -> ScanAnswer:
    """Write the results directly to the output folder."""
    from HSAMSegmentLib.workflows.segment_folder.folder_scan import waiting_outcome

    try:
        with Claims(Path(task.request.output)).one_try(task.scan.name) as poisoned:
            if not poisoned:
                return _do(task, context)
    except OutputError as error:
        poisoned, fault = str(error), BY_WORKER
    else:
        fault = BY_SCAN
    outcome = replace(waiting_outcome(task.request, task.scan), status=FAILED, message=poisoned)
    return ScanAnswer(outcome, fault, exit_code=OutputError.exit_code)


def _to_send_back(task: ScanTask, context: Context) -> ScanAnswer:
    """Write the results to a temporary folder, and return its contents."""
    from HSAMSegmentLib.workflows.segment_folder.folder_scan import waiting_outcome

    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-scan-"))
    except OSError as error:
        outcome = replace(waiting_outcome(task.request, task.scan), status=FAILED, message=f"No results: {error}.")
        return ScanAnswer(outcome, BY_WORKER, exit_code=OutputError.exit_code)
    try:
        answer = _do(replace(task, request=replace(task.request, output=str(folder), overwrite=True)), context)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        contents = tuple((path.relative_to(folder).as_posix(), path.read_bytes()) for path in files)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return replace(answer, files=contents)


def _do(task: ScanTask, context: Context) -> ScanAnswer:
    from HSAMSegmentLib.workflows.segment_folder.folder_scan import do_scan, sentence_of, waiting_outcome

    try:
        return ScanAnswer(do_scan(task.request, task.scan, context, ignore_progress))
    except CancelledError:
        raise
    except Exception as error:  # one bad scan must not stop the others, whatever is wrong with it
        logger.warning("%s failed", task.scan.path, exc_info=True)
        outcome = replace(waiting_outcome(task.request, task.scan), status=FAILED, message=sentence_of(error))
        return ScanAnswer(outcome, _fault_of(error), exit_code=getattr(error, "exit_code", 1))


def _fault_of(error: Exception) -> str:
    if isinstance(error, (VolumeError, RequestError)):
        return BY_SCAN
    is_of_place = isinstance(error, (OutputError, CheckpointError)) or (
        isinstance(error, DeviceError) and not isinstance(error.__cause__, MemoryError)
    )
    return BY_WORKER if is_of_place else UNCLEAR
