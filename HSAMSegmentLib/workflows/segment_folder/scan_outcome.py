"""What became of the scans of a folder, as plain data that runs, workers and reports share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from HSAMSegmentLib.io.scan_folder import Scan

WAITING = "not started"
DONE = "done"
DONE_BEFORE = "done before"
FAILED = "failed"
SKIPPED = "skipped"
CANCELLED = "cancelled"


@dataclass(frozen=True)
class ScanOutcome:
    """What became of one scan.

    Attributes:
        scan: the scan.
        status: `DONE`, `DONE_BEFORE` (an earlier run did it), `FAILED`, `SKIPPED` (no scan), `CANCELLED`
            or `WAITING`.
        message: the error of a failed scan, the warnings of a finished one.
        output: its segmentation file.
        model: id of the model that was used, empty if it did not come to that.
        found: names of the labels that were found.
        seconds: how long it took.
        volumes_ml: name and volume of every label that was looked for, 0 if it was not found.
        worker: the worker of a cluster that did it, empty without a cluster.
    """

    scan: Scan
    status: str
    message: str = ""
    output: Path | None = None
    model: str = ""
    found: tuple[str, ...] = ()
    seconds: float = 0.0
    volumes_ml: tuple[tuple[str, float], ...] = ()
    worker: str = ""

    @property
    def has_result(self) -> bool:
        """Whether its segmentation file is there."""
        return self.status in (DONE, DONE_BEFORE)


OnScan = Callable[[int, int, ScanOutcome], None]
"""Told of every scan before the first one is segmented, then what became of each: its index, how many, and what."""


@dataclass(frozen=True)
class FolderResult:
    """What became of a folder.

    Attributes:
        scans: one entry per scan, in the order of the summary.
        summary: the CSV file that says the same.
        manifest: JSON lines, one for each scan as soon as it ended; see `run_manifest`.
    """

    scans: tuple[ScanOutcome, ...]
    summary: Path
    manifest: Path

    def count(self, status: str) -> int:
        """How many scans have a status."""
        return sum(item.status == status for item in self.scans)
