"""The jobs of the service: their owners, their states, and the order in which they run."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.workflows.segment.segment_request import SegmentRequest

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
ENDED = (DONE, FAILED, CANCELLED)


class QueueFullError(HSAMSegmentError):
    """The queue is full; the client should try again later."""


class UnknownJobError(HSAMSegmentError):
    """The owner has no such job. Reveals nothing about jobs of others."""


@dataclass
class Job:
    """One scan in the service.

    Attributes:
        id: random name that cannot be guessed.
        owner: the sender, see `Tokens.owner`.
        folder: its files, deleted with the job.
        request: request for the worker.
        state: `WAITING`, `RUNNING`, `DONE`, `FAILED` or `CANCELLED`.
        progress: its progress.
        error: the message of a failed job.
        report: report of a finished job, as in the JSON report of the command line.
        wants_cancel: whether its client asked to stop it.
        is_delivering: whether its result is being sent.
        ended: when it ended (monotonic seconds); None before.
    """

    id: str
    owner: str
    folder: Path
    request: SegmentRequest
    state: str = WAITING
    progress: Progress = field(default_factory=lambda: Progress(0.0, "Waiting"))
    error: str = ""
    report: dict[str, Any] = field(default_factory=dict)
    wants_cancel: bool = False
    is_delivering: bool = False
    ended: float | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it has reached a final state."""
        return self.state in ENDED

    @property
    def result_file(self) -> Path:
        """The segmentation of a finished job."""
        assert self.request.files is not None  # every request of the service names its file
        return self.request.files.segmentation


class JobBoard:
    """All jobs; thread-safe.

    The next job is from the owner who was served longest ago, so that a client with many scans does not block the
    others.

    Args:
        waiting_jobs: maximum number of uploads and waiting jobs; one owner gets three quarters of it.
        kept_jobs: maximum number of jobs in total, including those whose result waits for its client.
        keep_seconds: how long a finished job is kept for its client.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        *,
        waiting_jobs: int,
        kept_jobs: int,
        keep_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_waiting = waiting_jobs
        self._most_of_one = waiting_jobs - waiting_jobs // 4
        self._most_kept = kept_jobs
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._uploads: list[str] = []
        self._served: dict[str, int] = {}
        self._turns = 0
        self._changed = threading.Condition()

    @contextmanager
    def place(self, owner: str) -> Iterator[None]:
        """Reserve a place in the queue during an upload.

        Raises:
            QueueFullError: if all places, or all places of the owner, are taken.
        """
        with self._changed:
            self._require_place(owner)
            self._uploads.append(owner)
        try:
            yield
        finally:
            with self._changed:
                self._uploads.remove(owner)

    def _require_place(self, owner: str) -> None:
        waiting = [*self._uploads, *(job.owner for job in self._waiting())]
        if len(waiting) >= self._most_waiting:
            raise QueueFullError(
                f"{self._most_waiting} jobs wait already, which is all that this service takes. Try again later."
            )
        if waiting.count(owner) >= self._most_of_one:
            raise QueueFullError(
                f"{self._most_of_one} of your jobs wait already, which is your share. Try again later."
            )
        if len(self._jobs) + len(self._uploads) >= self._most_kept:
            raise QueueFullError(
                f"The service keeps {self._most_kept} jobs, and most wait to be fetched. Fetch or delete yours, and "
                "try again later."
            )

    def add(self, owner: str, folder: Path, request: SegmentRequest) -> Job:
        """Append a job to the queue; its files are in `folder`, which the job now owns."""
        job = Job(secrets.token_urlsafe(24), owner, folder, request)
        with self._changed:
            self._jobs[job.id] = job
            self._changed.notify()
        return job

    def find(self, job_id: str, owner: str) -> Job:
        """Find a job of this owner.

        Raises:
            UnknownJobError: if the owner has no job with this ID.
        """
        with self._changed:
            job = self._jobs.get(job_id)
        if job is None or job.owner != owner:
            raise UnknownJobError("There is no such job: it was delivered, deleted, or kept too long, or never was.")
        return job

    def place_in_queue(self, job: Job) -> int:
        """Maximum number of waiting jobs ahead of this one; 0 if it is not waiting."""
        with self._changed:
            waiting = self._waiting()
            return waiting.index(job) if job in waiting else 0

    def take(self, timeout: float) -> Job | None:
        """Start the next job; None if there was none within `timeout` seconds."""
        with self._changed:
            if not self._waiting():
                self._changed.wait(timeout)
            waiting = self._waiting()
            if not waiting:
                return None
            job = min(waiting, key=lambda item: self._served.get(item.owner, -1))
            self._turns += 1
            self._served[job.owner] = self._turns
            job.state = RUNNING
            return job

    def report_progress(self, job: Job, progress: Progress) -> None:
        """Record the progress of a running job."""
        with self._changed:
            job.progress = progress

    def end(self, job: Job, state: str, *, error: str = "", report: dict[str, Any] | None = None) -> None:
        """Record how a job ended, and delete its files except the result; a job abandoned by its client is removed."""
        with self._changed:
            job.error, job.report = error, report or {}
            job.ended, job.state = self._clock(), state
            is_forgotten = self._jobs.get(job.id) is not job
        if is_forgotten or state != DONE:
            shutil.rmtree(job.folder, ignore_errors=True)
        else:
            _delete_all_but(job.result_file, job.folder)

    def remove(self, job: Job) -> None:
        """Remove a job and delete its files; a running one is canceled and cleaned up by its runner."""
        with self._changed:
            self._jobs.pop(job.id, None)
            job.wants_cancel = True
            if job.state == WAITING:
                job.state = CANCELLED
            is_running = job.state == RUNNING
        if not is_running:
            shutil.rmtree(job.folder, ignore_errors=True)

    def start_delivery(self, job: Job) -> bool:
        """Claim the result of a finished job for one delivery; False while another one is in progress."""
        with self._changed:
            if job.is_delivering or self._jobs.get(job.id) is not job:
                return False
            job.is_delivering = True
            return True

    def end_delivery(self, job: Job, *, remove: bool) -> None:
        """Release the claim; a delivered job is removed."""
        with self._changed:
            job.is_delivering = False
            job.ended = self._clock()
        if remove:
            self.remove(job)

    def expire(self) -> int:
        """Remove finished jobs whose result was not fetched in time; return their number."""
        with self._changed:
            limit = self._clock() - self._keep_seconds
            old = [job for job in self._jobs.values() if job.ended is not None and job.ended < limit]
            old = [job for job in old if not job.is_delivering]
        for job in old:
            self.remove(job)
        return len(old)

    def counts(self) -> dict[str, int]:
        """Number of jobs by state."""
        with self._changed:
            states = [job.state for job in self._jobs.values()]
        return {state: states.count(state) for state in (WAITING, RUNNING, *ENDED)}

    def _waiting(self) -> list[Job]:
        return [job for job in self._jobs.values() if job.state == WAITING]


def _delete_all_but(kept: Path, folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path != kept:
            path.unlink(missing_ok=True)
