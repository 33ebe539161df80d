"""The manifest of a run over many scans: JSON lines, complete up to the last scan after a kill at any moment.

Each run appends a line `{"event": "run", ...}` at its start and a line `{"event": "scan", ...}` per finished scan, and
flushes every line to disk before it continues. A kill can truncate the last line; the next writer starts a new one, and
the reader skips truncated ones. Several runs may write to one manifest.

The summary of a run is a CSV file with a row per scan, replaced atomically. A job array divides the list of scans:
part n takes every Nth scan.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import BaseFileLock

from HSAMSegmentLib import __version__
from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.io.scan_folder import Scan
from HSAMSegmentLib.runtime.atomic_files import atomic_output, explain_write_error
from HSAMSegmentLib.workflows.segment.result_records import comparable_options
from HSAMSegmentLib.workflows.segment_folder.folder_request import FolderRequest
from HSAMSegmentLib.workflows.segment_folder.scan_outcome import ScanOutcome

_COLUMNS = ("scan", "status", "message", "output", "model", "found", "seconds")
_PAUSE_FACTOR = 20.0
"""Writing a summary of 100,000 rows takes a while, so it gets at most a twentieth of the time."""


class RunManifest:
    """Appends the lines of one run."""

    def __init__(self, path: Path, run: str, lock: BaseFileLock | None = None) -> None:
        """
        Args:
            path: the manifest; created if missing.
            run: ID of the run, repeated in each of its lines.
            lock: held while writing a line, if another run may also write; None for a single writer.
        """
        self.path, self._run, self._lock = path, run, lock

    def start(self, request: FolderRequest, count: int) -> None:
        """Write the request of the run.

        Raises:
            OutputError: if the manifest cannot be written.
        """
        self._append(
            {
                "event": "run",
                "version": __version__,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "source": request.source,
                "scans": count,
                "model": request.model,
                "options": comparable_options(request.options),
                "shard": request.shard,
                "workers": request.workers,
                "scheduler": request.scheduler,
            }
        )

    def add(self, outcome: ScanOutcome, root: Path) -> None:
        """Write the outcome of a scan.

        Args:
            outcome: the outcome.
            root: folder that paths of results are relative to.

        Raises:
            OutputError: if the manifest cannot be written.
        """
        output = outcome.output if outcome.has_result else None
        self._append(
            {
                "event": "scan",
                "scan": outcome.scan.name,
                "status": outcome.status,
                "message": outcome.message,
                "path": str(outcome.scan.path),
                "series": outcome.scan.series,
                "output": None if output is None else output.relative_to(root).as_posix(),
                "model": outcome.model,
                "volumes_ml": dict(outcome.volumes_ml),
                "seconds": round(outcome.seconds, 3),
                "worker": outcome.worker,
            }
        )

    def _append(self, values: dict[str, Any]) -> None:
        time = datetime.now(timezone.utc).isoformat(timespec="seconds")
        line = json.dumps({"time": time, "run": self._run, **values}).encode("utf-8") + b"\n"
        try:
            if self._lock is None:
                _append_line(self.path, line)
            else:
                with self._lock:
                    _append_line(self.path, line)
        except OSError as error:
            raise explain_write_error(error, self.path) from error


def _append_line(path: Path, line: bytes) -> None:
    with open(path, "ab+") as stream:
        end = stream.seek(0, os.SEEK_END)
        if end:
            stream.seek(end - 1)
            if stream.read(1) != b"\n":
                line = b"\n" + line
        stream.write(line)
        stream.flush()
        os.fsync(stream.fileno())


def read_manifest(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a manifest, oldest first; truncated lines are skipped."""
    with open(path, "rb") as stream:
        for line in stream:
            try:
                values = json.loads(line)
            except ValueError:
                continue
            if isinstance(values, dict):
                yield values


def read_shard(text: str) -> tuple[int, int] | None:
    """Parse number and count of "3/10"; None for "".

    Raises:
        RequestError: if it has another form, or the number is not between 1 and the count.
    """
    if not text:
        return None
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise RequestError(f"'{text}' is not part of a list: give K/N, from 1/N to N/N, for example 3/10.")
    return number, count


def scans_of_shard(scans: Sequence[Scan], shard: tuple[int, int] | None) -> Sequence[Scan]:
    """The scans of a shard: every Nth of the sorted list, starting with the Kth. It may be empty."""
    if shard is None:
        return scans
    number, count = shard
    return scans[number - 1 :: count]


class SummaryFile:
    """Writes the summary after each scan, for large cohorts at intervals."""

    def __init__(self, path: Path, root: Path) -> None:
        """
        Args:
            path: the CSV file.
            root: folder that paths of results are relative to.
        """
        self.path, self._root = path, root
        self._next = 0.0

    def update(self, outcomes: Sequence[ScanOutcome]) -> None:
        """Write the summary, unless it was written a moment ago.

        Raises:
            OutputError: if it cannot be written.
        """
        if time.monotonic() >= self._next:
            self.write(outcomes)

    def write(self, outcomes: Sequence[ScanOutcome]) -> None:
        """Write the summary now.

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
