"""How fast a download is and when it will be there. No torch here."""

from __future__ import annotations

import time
from collections import deque

from HSAMSegmentLib.runtime.disk import format_bytes
from HSAMSegmentLib.runtime.progress import Progress, ProgressCallback

_REPORT_EVERY_S = 0.2
_SPEED_WINDOW_S = 5.0


class DownloadProgress:
    """Turns counted bytes into `Progress` reports: fraction, speed of the last seconds, ETA."""

    def __init__(self, report: ProgressCallback, stage: str) -> None:
        self._report = report
        self._stage = stage
        self._samples: deque[tuple[float, int]] = deque()
        self._done = 0
        self._total: int | None = None
        self._reported = 0.0

    def start(self, done: int, total: int | None) -> None:
        """Begin, or go on, at `done` of `total` bytes."""
        self._done, self._total = done, total
        self._samples.clear()
        self._say(time.monotonic())

    def add(self, count: int) -> None:
        """Count bytes that arrived."""
        self._done += count
        now = time.monotonic()
        if now - self._reported >= _REPORT_EVERY_S:
            self._say(now)

    def finish(self) -> None:
        """Report the end."""
        self._report(Progress(1.0, self._stage, format_bytes(self._done), 0.0))

    def _say(self, now: float) -> None:
        self._reported = now
        self._samples.append((now, self._done))
        while now - self._samples[0][0] > _SPEED_WINDOW_S:
            self._samples.popleft()
        seconds = now - self._samples[0][0]
        speed = (self._done - self._samples[0][1]) / seconds if seconds > 0 else 0.0
        total = "" if self._total is None else f" of {format_bytes(self._total)}"
        pace = f", {format_bytes(speed)}/s" if speed > 0 else ""
        eta = (self._total - self._done) / speed if self._total is not None and speed > 0 else None
        fraction = min(self._done / self._total, 1.0) if self._total else 0.0
        self._report(Progress(fraction, self._stage, f"{format_bytes(self._done)}{total}{pace}", eta))
