"""The progress of a run on many workers: scans that ended, and how long the rest takes at this pace."""

from __future__ import annotations

import time

from HSAMSegmentLib.runtime.progress import Progress, ProgressCallback
from HSAMSegmentLib.workflows.segment_folder.scan_outcome import CANCELLED, DONE_BEFORE, ScanOutcome


class ClusterClock:
    """Counts scans and estimates the remaining time; scans of an earlier run say nothing about the pace."""

    def __init__(self, report: ProgressCallback, count: int) -> None:
        """
        Args:
            report: receives the progress.
            count: scans of the run.
        """
        self._report, self._count = report, count
        self._ended, self._segmented = 0, 0
        self._began = time.monotonic()
        self._shown: tuple[int, int] | None = None

    @property
    def fraction(self) -> float:
        """Part of the scans that ended."""
        return self._ended / max(self._count, 1)

    def starting(self, scheduler: str) -> None:
        """Say what is waited for."""
        self._report(Progress(0.0, "Connecting to the scheduler" if scheduler else "Starting the workers", scheduler))

    def count(self, outcome: ScanOutcome) -> None:
        """Count a scan that ended."""
        if outcome.status != CANCELLED:
            self._ended += 1
            self._segmented += outcome.status != DONE_BEFORE

    def report(self, workers: int, elsewhere: int) -> None:
        """Report, if anything changed.

        Args:
            workers: how many there are.
            elsewhere: scans of another run, if nothing but these is left.
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
