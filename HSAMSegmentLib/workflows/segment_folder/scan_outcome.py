"""Outcomes of the scans of a folder, as plain data shared by runs, workers and reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from HSAMSegmentLib.io.scan_folder import Scan

NOT_STARTED = "not started"
DONE = "done"
DONE_BEFORE = "done before"
FAILED = "failed"
SKIPPED = "skipped"
CANCELLED = "cancelled"


@dataclass(frozen=True)
class ScanOutcome:
    """The outcome of one scan.

    Attributes:
        scan: the scan.
        status: `DONE`, `DONE_BEFORE` (an earlier run did it), `FAILED`, `SKIPPED` (no scan), `CANCELLED`
            or `NOT_STARTED`.
        message: the error of a failed scan, the warnings of a finished one.
        output: its segmentation file.
        model: ID of the model that was used, empty if none was.
        found: names of the labels that were found.
        seconds: duration.
        volumes_ml: name and volume of every requested label, 0 if not found.
        worker: the cluster worker that did it; empty without a cluster.
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
        """Whether it has a segmentation file."""
        return self.status in (DONE, DONE_BEFORE)


OnScan = Callable[[int, int, ScanOutcome], None]
"""Called for every scan before the first one is segmented, then with each outcome: index, count and outcome."""


@dataclass(frozen=True)
class FolderResult:
    """The outcome of a folder.

    Attributes:
        scans: one entry per scan, in the order of the summary.
        summary: the CSV file with the same content.
        manifest: JSON lines, one per finished scan; see `run_manifest`.
    """

    scans: tuple[ScanOutcome, ...]
    summary: Path
    manifest: Path

    def count(self, status: str) -> int:
        """Number of scans with a status."""
        return sum(item.status == status for item in self.scans)
