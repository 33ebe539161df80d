"""The summary of a run over many scans: a CSV file with a row per scan, replaced as a whole."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path

from HSAMSegmentLib.runtime.atomic_files import atomic_output
from HSAMSegmentLib.workflows.segment_folder.scan_outcome import ScanOutcome

_COLUMNS = ("scan", "status", "message", "output", "model", "found", "seconds")
_PAUSE_FACTOR = 20.0
"""A summary of 100,000 rows takes a while to write, so it takes at most a twentieth of the time."""


class SummaryFile:
    """Writes the summary after each scan, for large cohorts from time to time."""

    def __init__(self, path: Path, root: Path) -> None:
        """
        Args:
            path: the CSV file.
            root: folder that the names of results are relative to.
        """
        self.path, self._root = path, root
        self._next = 0.0

    def update(self, outcomes: Sequence[ScanOutcome]) -> None:
        """Write it, unless it was written a moment ago.

        Raises:
            OutputError: if it cannot be written.
        """
        if time.monotonic() >= self._next:
            self.write(outcomes)

    def write(self, outcomes: Sequence[ScanOutcome]) -> None:
        """Write it now.

        Raises:
            OutputError: if it cannot be written.
        """
        began = time.monotonic()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(self._row(item) for item in outcomes)
        with atomic_output(self.path, overwrite=True) as stream:
            stream.write(text.getvalue().encode("utf-8", "backslashreplace"))
        ended = time.monotonic()
        self._next = ended + _PAUSE_FACTOR * (ended - began)

    def _row(self, item: ScanOutcome) -> tuple[str, ...]:
        output = item.output if item.has_result else None
        shown = "" if output is None else output.relative_to(self._root).as_posix()
        found = "; ".join(item.found)
        return (item.scan.name, item.status, item.message, shown, item.model, found, f"{item.seconds:.1f}")
