"""The manifest of a run over many scans: JSON lines, complete up to the last scan after a kill at any moment.

Each run writes a line `{"event": "run", ...}` at its start and a line `{"event": "scan", ...}` for each scan that
ended, appends only, and has every line on the disk before it goes on. A kill can tear the last line; the next writer
starts a new one, and the reader passes over what is torn. Several runs may write to one manifest.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import BaseFileLock

from HSAMSegmentLib import __version__
from HSAMSegmentLib.runtime.atomic_files import explain_write_error
from HSAMSegmentLib.workflows.segment.result_records import comparable_options
from HSAMSegmentLib.workflows.segment_folder.folder_request import FolderRequest
from HSAMSegmentLib.workflows.segment_folder.scan_outcome import ScanOutcome


class RunManifest:
    """Appends the lines of one run."""

    def __init__(self, path: Path, run: str, lock: BaseFileLock | None = None) -> None:
        """
        Args:
            path: the manifest; created if it is missing.
            run: id of the run, in each of its lines.
            lock: held while a line is written, where another run may also write; None for a manifest of one writer.
        """
        self.path, self._run, self._lock = path, run, lock

    def start(self, request: FolderRequest, count: int) -> None:
        """Write what the run was asked for.

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
        """Write what became of a scan.

        Args:
            outcome: of the scan.
            root: folder that the names of results are relative to.

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
    """The lines of a manifest, oldest first; a line that a kill has torn is passed over."""
    with open(path, "rb") as stream:
        for line in stream:
            try:
                values = json.loads(line)
            except ValueError:
                continue
            if isinstance(values, dict):
                yield values
