"""Segment the scans of a run on the workers of a Dask scheduler: one scan per task.

The scheduler holds only as many tasks as its workers can take. So its memory does not grow with the cohort, a dying
worker takes few tasks with it, and a joining worker gets work immediately. Results are in the output folder, never in
the memory of the cluster.

A worker with a full disk would fail fast, be idle immediately, and burn through the cohort: it gets no more scans.
"""

from __future__ import annotations

import itertools
import queue
import time
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distributed import Future, KilledWorker

from HSAMSegmentLib.errors import (
    CancelledError,
    CheckpointError,
    DeviceError,
    HSAMSegmentError,
    ModelNotFoundError,
    OutputError,
)
from HSAMSegmentLib.runtime.progress import Progress, ProgressCallback
from HSAMSegmentLib.workflows.cohort.claims import MOST_TRIES, Claim, poisoned_sentence
from HSAMSegmentLib.workflows.cohort.connection import Connection, connected
from HSAMSegmentLib.workflows.cohort.sent_results import SentResults
from HSAMSegmentLib.workflows.cohort.worker_task import BY_SCAN, BY_WORKER, ScanAnswer, ScanTask, segment_task, stop_run
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.segment_folder.folder_run import FolderRun
from HSAMSegmentLib.workflows.segment_folder.folder_scan import sentence_of
from HSAMSegmentLib.workflows.segment_folder.scan_outcome import CANCELLED, DONE_BEFORE, FAILED, ScanOutcome

MOST_STRIKES = 3

_LOOK_SECONDS = 0.5
_OTHER_RUN_SECONDS = 1.0
_STOP_SECONDS = 10.0
_GATHER_SECONDS = 60
_SPARE_TASKS = 2
"""Tasks beyond one running and one waiting per worker, for workers that are about to join."""

_MOST_STRANGE = 3
_ERRORS = {kind.exit_code: kind for kind in (OutputError, CheckpointError, ModelNotFoundError, DeviceError)}


class WorkerHealth:
    """Counts consecutive failures that are the fault of a worker, not of a scan."""

    def __init__(self) -> None:
        self._strikes: Counter[str] = Counter()
        self.last_reason = ""
        self.last_exit_code = 1

    def succeeded(self, worker: str) -> None:
        """Record that a worker finished a scan."""
        self._strikes.pop(worker, None)

    def failed(self, worker: str, reason: str, exit_code: int) -> None:
        """Record that a worker failed for a reason unrelated to the scan."""
        self._strikes[worker] += 1
        self.last_reason, self.last_exit_code = reason, exit_code

    def usable(self, workers: Iterable[str]) -> list[str]:
        """The workers that are not excluded."""
        return [worker for worker in workers if self._strikes[worker] < MOST_STRIKES]


class ClusterClock:
    """Counts scans and estimates the remaining time; scans of earlier runs do not count for the pace."""

    def __init__(self, report: ProgressCallback, count: int) -> None:
        """
        Args:
            report: called with the progress.
            count: number of scans in the run.
        """
        self._report, self._count = report, count
        self._ended, self._segmented = 0, 0
        self._began = time.monotonic()
        self._shown: tuple[int, int] | None = None

    @property
    def fraction(self) -> float:
        """Fraction of the scans that are finished."""
        return self._ended / max(self._count, 1)

    def starting(self, scheduler: str) -> None:
        """Report what the run is waiting for."""
        self._report(Progress(0.0, "Connecting to the scheduler" if scheduler else "Starting the workers", scheduler))

    def count(self, outcome: ScanOutcome) -> None:
        """Count a finished scan."""
        if outcome.status != CANCELLED:
            self._ended += 1
            self._segmented += outcome.status != DONE_BEFORE

    def report(self, workers: int, elsewhere: int) -> None:
        """Report any change.

        Args:
            workers: number of workers.
            elsewhere: scans claimed by another run, if only these are left.
        """
        if self._shown == (self._ended, workers) and not elsewhere:
            return
        self._shown = self._ended, workers
        if elsewhere:
            detail = f"{elsewhere} of {self._count} scans are being segmented by another run"
            self._report(Progress(self.fraction, "Waiting for another run", detail))
            return
        stage = "Segmenting" if workers else "Waiting for workers"
        detail = f"{self._ended} of {self._count} scans, {workers} worker{'' if workers == 1 else 's'}"
        self._report(Progress(self.fraction, stage, detail, self._eta()))

    def _eta(self) -> float | None:
        if not self._segmented:
            return None
        return (time.monotonic() - self._began) / self._segmented * (self._count - self._ended)


def segment_on_cluster(run: FolderRun, context: Context) -> None:
    """Segment all scans of a run on the workers of its scheduler, or on local workers.

    Raises:
        RequestError: if there is no scheduler at the address, or if it is gone for good.
        OutputError, CheckpointError, DeviceError: if no worker can continue, for example because of a full disk.
        CancelledError: on cancel; finished scans are kept.
    """
    clock = ClusterClock(context.emit, len(run.outcomes))
    clock.starting(run.request.scheduler)
    beacon = run.claims.folder / f"run-{run.id}"
    with connected(run.request) as connection:
        try:
            beacon.touch()
            _ClusterRun(run, context, connection, beacon, clock).all()
        finally:
            beacon.unlink(missing_ok=True)


@dataclass
class _Job:
    """A scan at the scheduler.

    Attributes:
        index: index of the scan.
        claim: claim on the scan.
        failed_on: workers that failed for their own or unclear reasons.
        deaths: how often the scheduler gave it up because workers died.
    """

    index: int
    claim: Claim
    failed_on: tuple[str, ...] = ()
    deaths: int = 0


class _ClusterRun:
    """Keeps the workers busy and collects their answers."""

    def __init__(
        self, run: FolderRun, context: Context, connection: Connection, beacon: Path, clock: ClusterClock
    ) -> None:
        self._run, self._context, self._connection, self._beacon = run, context, connection, beacon
        self._clock, self._health, self._sent = clock, WorkerHealth(), SentResults(run.request, context, str(beacon))
        self._waiting: deque[int] = deque(range(len(run.outcomes)))
        self._elsewhere: deque[int] = deque()
        self._again: deque[_Job] = deque()
        self._jobs: dict[Future[Any], _Job] = {}
        self._ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._attempts = itertools.count()
        self._elsewhere_at = 0.0
        self._strange = 0
        self._has_lost_tasks = False

    def all(self) -> None:
        """Segment all scans."""
        try:
            while self._waiting or self._elsewhere or self._again or self._jobs:
                self._context.cancel.raise_if_cancelled()
                if self._connection.is_lost or self._has_lost_tasks:
                    self._come_back()
                self._fill()
                is_for_others = not (self._waiting or self._again or self._jobs)
                self._clock.report(len(self._connection.workers()), len(self._elsewhere) if is_for_others else 0)
                self._take(_LOOK_SECONDS)
        except HSAMSegmentError:
            self._stop()
            raise
        finally:
            for job in (*self._jobs.values(), *self._again):
                job.claim.release()

    def _fill(self) -> None:
        """Submit scans until each worker has one to process and, on a cluster, another one waiting."""
        self._look_elsewhere()
        workers = self._connection.workers()
        usable = self._health.usable(workers)
        if workers and not usable:
            if self._jobs:  # pending ones may still succeed
                return
            kind = _ERRORS.get(self._health.last_exit_code, HSAMSegmentError)
            raise kind(f"No worker can go on: {self._health.last_reason} Finished scans stay.")
        self._sent.look_at(self._connection.client, list(workers))
        room = 2 * len(usable) + _SPARE_TASKS if self._run.request.scheduler else len(usable)
        while len(self._jobs) < room and (self._again or self._waiting):
            if self._again:
                self._submit(self._again.popleft(), usable)
            else:
                self._begin(self._waiting.popleft(), usable)

    def _look_elsewhere(self) -> None:
        """Check the scans of another run again, once the others are submitted."""
        if self._elsewhere and not self._waiting and time.monotonic() - self._elsewhere_at > _OTHER_RUN_SECONDS:
            self._elsewhere_at = time.monotonic()
            self._waiting, self._elsewhere = self._elsewhere, deque()

    def _begin(self, index: int, usable: list[str]) -> None:
        waiting = self._run.outcomes[index]
        claim = self._run.claims.claim(waiting.scan.name)
        if claim is None:
            self._elsewhere.append(index)
            return
        known = self._sent.known_outcome(waiting.scan)
        if known is not None:
            self._finish(_Job(index, claim), known)
        else:
            self._submit(_Job(index, claim), usable)

    def _submit(self, job: _Job, usable: list[str]) -> None:
        run = self._run
        others = [worker for worker in usable if worker not in job.failed_on]
        is_choosy = others and len(others) < len(self._connection.workers())
        future = self._connection.client.submit(
            segment_task,
            ScanTask(self._connection.request, run.outcomes[job.index].scan, run.id, str(self._beacon)),
            key=f"hsam-segment-{run.id}-{job.index}-{next(self._attempts)}",
            pure=False,
            workers=others if is_choosy else None,
        )
        self._jobs[future] = job
        future.add_done_callback(self._ended.put)

    def _take(self, seconds: float) -> None:
        """Collect available answers; wait a while for the first one."""
        with suppress(queue.Empty):
            while True:
                future = self._ended.get(timeout=seconds)
                seconds = 0.0
                job = self._jobs.pop(future, None)
                if job is not None:
                    self._ended_job(future, job)

    def _ended_job(self, future: Future[Any], job: _Job) -> None:
        if future.status == "finished":
            try:
                self._answered(future.result(timeout=_GATHER_SECONDS), job)
            except (OSError, TimeoutError):  # the worker is gone with its answer, but its files are there
                self._again.append(job)
        elif future.status == "error":
            self._failed(future.exception(timeout=_GATHER_SECONDS), job)
        else:  # lost with the scheduler
            self._again.append(job)
            self._has_lost_tasks = True
        future.release()

    def _answered(self, answer: ScanAnswer, job: _Job) -> None:
        outcome = answer.outcome
        self._strange = 0
        if outcome.status == FAILED and answer.fault == BY_WORKER:
            self._health.failed(answer.address, outcome.message, answer.exit_code)
            job.failed_on = (*job.failed_on, answer.address)
            # Counts once per worker: one that fails again and again is excluded before that.
            self._retry_or_finish(job, outcome, len(set(job.failed_on)))
            return
        if outcome.status == FAILED and answer.fault != BY_SCAN:
            job.failed_on = (*job.failed_on, answer.address)
            self._retry_or_finish(job, outcome, len(job.failed_on))
            return
        self._health.succeeded(answer.address)
        self._finish(job, self._sent.received(answer))

    def _failed(self, error: BaseException, job: _Job) -> None:
        """Handle a task that ended without an answer."""
        waiting = self._run.outcomes[job.index]
        if isinstance(error, CancelledError):
            self._finish(job, replace(waiting, status=CANCELLED))
        elif isinstance(error, KilledWorker):
            self._killed(job, waiting)
        else:
            self._strange += 1
            if self._strange >= _MOST_STRANGE:
                raise HSAMSegmentError(
                    f"The workers cannot run HSAMSegment ({type(error).__name__}: {error}); is the same version "
                    "installed there?"
                ) from error
            job.failed_on = (*job.failed_on, "")
            self._retry_or_finish(job, replace(waiting, status=FAILED, message=sentence_of(error)), len(job.failed_on))

    def _killed(self, job: _Job, waiting: ScanOutcome) -> None:
        """Handle a scan given up because workers died; if it only waited on them it is submitted again."""
        claims, name = self._run.claims, waiting.scan.name
        job.deaths += 1
        tries = claims.tries(name)
        if len(tries) < MOST_TRIES and job.deaths < MOST_TRIES and self._run.request.scheduler:
            self._again.append(job)
            return
        claims.forget(name)
        self._finish(job, replace(waiting, status=FAILED, message=poisoned_sentence(tries)))

    def _retry_or_finish(self, job: _Job, outcome: ScanOutcome, tries: int) -> None:
        """Retry a scan on another worker, once; then it has failed, for the last worker's reason."""
        if tries < MOST_TRIES:
            self._again.append(job)
        else:
            self._finish(job, outcome)

    def _finish(self, job: _Job, outcome: ScanOutcome) -> None:
        try:
            self._run.note(job.index, outcome)
        finally:
            job.claim.release()
        self._clock.count(outcome)

    def _come_back(self) -> None:
        """Wait for the scheduler, then resubmit its tasks."""
        jobs = list(self._jobs.values())
        self._jobs.clear()
        self._again.extend(jobs)
        for job in jobs:  # a worker that died with the scheduler says nothing about the scan
            self._run.claims.forget(self._run.outcomes[job.index].scan.name)
        self._connection.restore(self._context, self._clock.fraction)
        self._has_lost_tasks = False

    def _stop(self) -> None:
        """Stop the workers, and collect what they finish in time."""
        if self._connection.is_lost:
            return
        with suppress(OSError, TimeoutError, RuntimeError):
            self._connection.client.run(stop_run, self._run.id, on_error="ignore")
        end = time.monotonic() + _STOP_SECONDS
        while self._jobs and time.monotonic() < end:
            with suppress(HSAMSegmentError):  # the first error is already on its way to the user
                self._take(_LOOK_SECONDS)
        with suppress(OSError, TimeoutError, RuntimeError):
            self._connection.client.cancel(list(self._jobs))
        for job in self._jobs.values():
            with suppress(HSAMSegmentError):
                self._run.note(job.index, replace(self._run.outcomes[job.index], status=CANCELLED))
