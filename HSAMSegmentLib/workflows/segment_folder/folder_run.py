"""One pass over many scans: their outcomes in memory, in the summary, and in the manifest."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from HSAMSegmentLib.io.scan_folder import Scan
from HSAMSegmentLib.workflows.cohort.claims import MANIFEST_LOCK, Claims
from HSAMSegmentLib.workflows.cohort.run_manifest import RunManifest, SummaryFile, read_shard
from HSAMSegmentLib.workflows.segment_folder.folder_request import FolderRequest
from HSAMSegmentLib.workflows.segment_folder.folder_scan import waiting_outcome
from HSAMSegmentLib.workflows.segment_folder.scan_outcome import FolderResult, OnScan, ScanOutcome

SUMMARY_NAME = "summary.csv"
MANIFEST_NAME = "manifest.jsonl"


class FolderRun:
    """The scans of a run and their records.

    Attributes:
        request: the request.
        id: ID of this run.
        outcomes: outcome of each scan, in the order of the summary.
        claims: claims on the scans.
    """

    def __init__(self, request: FolderRequest, scans: Sequence[Scan], on_scan: OnScan | None = None) -> None:
        """
        Args:
            request: the request; its output folder exists.
            scans: scans of this run.
            on_scan: called with the outcome of each scan.

        Raises:
            OutputError: if the output folder is not writable.
        """
        self.request = request
        self.id = uuid.uuid4().hex[:12]
        self.folder = Path(request.output)
        self.outcomes = [waiting_outcome(request, scan) for scan in scans]
        self.claims = Claims(self.folder)
        self._on_scan = on_scan
        shard = read_shard(request.shard)
        part = "" if shard is None else f"-{shard[0]}-of-{shard[1]}"
        self._summary = SummaryFile(_with_part(self.folder / SUMMARY_NAME, part), self.folder)
        lock = self.claims.lock(MANIFEST_LOCK)
        self._manifest = RunManifest(_with_part(self.folder / MANIFEST_NAME, part), self.id, lock)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Report all scans, and leave a complete summary however the block ends.

        Raises:
            OutputError: if the output folder is not writable.
        """
        self._summary.write(self.outcomes)
        self._manifest.start(self.request, len(self.outcomes))
        for index, waiting in enumerate(self.outcomes):
            self._tell(index, waiting)
        try:
            yield
        finally:
            self._summary.write(self.outcomes)
            self.claims.tidy()

    def note(self, index: int, outcome: ScanOutcome) -> None:
        """Record the outcome of a scan.

        Raises:
            OutputError: if the output folder is not writable.
        """
        self.outcomes[index] = outcome
        self._manifest.add(outcome, self.folder)
        self._summary.update(self.outcomes)
        self._tell(index, outcome)

    def result(self) -> FolderResult:
        """The outcomes of all scans."""
        return FolderResult(tuple(self.outcomes), self._summary.path, self._manifest.path)

    def _tell(self, index: int, outcome: ScanOutcome) -> None:
        if self._on_scan is not None:
            self._on_scan(index, len(self.outcomes), outcome)


def _with_part(path: Path, part: str) -> Path:
    return path.with_name(f"{path.stem}{part}{path.suffix}")
