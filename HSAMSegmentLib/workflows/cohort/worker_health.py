"""Which workers may get scans: one with a full disk would fail fast, be idle again at once, and eat up the cohort."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

MOST_STRIKES = 3


class WorkerHealth:
    """Counts failures in a row that are the fault of a worker, not of a scan."""

    def __init__(self) -> None:
        self._strikes: Counter[str] = Counter()
        self.last_reason = ""
        self.last_exit_code = 1

    def succeeded(self, worker: str) -> None:
        """A worker did a scan."""
        self._strikes.pop(worker, None)

    def failed(self, worker: str, reason: str, exit_code: int) -> None:
        """A worker failed for a reason that is not the scan's."""
        self._strikes[worker] += 1
        self.last_reason, self.last_exit_code = reason, exit_code

    def usable(self, workers: Iterable[str]) -> list[str]:
        """Those that are not set aside."""
        return [worker for worker in workers if self._strikes[worker] < MOST_STRIKES]
