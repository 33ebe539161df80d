"""Segment many scans into a folder: one bad scan does not stop the others, and finished results are kept."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from HSAMSegmentLib.errors import CancelledError, RequestError
from HSAMSegmentLib.export.formats import format_named
from HSAMSegmentLib.inference.options import selected_values
from HSAMSegmentLib.io.scan_folder import Scan
from HSAMSegmentLib.io.scan_lists import find_listed_scans
from HSAMSegmentLib.runtime.atomic_files import make_folder
from HSAMSegmentLib.runtime.devices import choose_device
from HSAMSegmentLib.runtime.extras import require_extra
from HSAMSegmentLib.runtime.progress import Progress, ProgressCallback, interruptible
from HSAMSegmentLib.runtime.serialization import to_plain
from HSAMSegmentLib.workflows.cohort.claims import Claim
from HSAMSegmentLib.workflows.cohort.run_manifest import read_shard, scans_of_shard
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.events import ItemDone
from HSAMSegmentLib.workflows.segment_folder.folder_request import DONE, WAITING, BatchRow, FolderRequest, FolderSummary
from HSAMSegmentLib.workflows.segment_folder.folder_run import FolderRun
from HSAMSegmentLib.workflows.segment_folder.folder_scan import try_scan
from HSAMSegmentLib.workflows.segment_folder.scan_outcome import (
    CANCELLED,
    DONE_BEFORE,
    FAILED,
    NOT_STARTED,
    FolderResult,
    OnScan,
    ScanOutcome,
)

_LOOK_SECONDS = 0.5
_STATES = {DONE_BEFORE: DONE, NOT_STARTED: WAITING}
"""The state of a row, by the status of a scan, where their names differ."""


def run(request: FolderRequest, context: Context) -> FolderSummary:
    """Segment every scan of a folder; each is reported as an `ItemDone` with the plain values of a `BatchRow`.

    Raises:
        HSAMSegmentError: as `segment_folder`.
    """
    context.emit(Progress(0.0, "Loading the model"))

    def tell(index: int, count: int, outcome: ScanOutcome) -> None:
        context.emit(ItemDone(index, count, to_plain(_row(outcome))))

    return FolderSummary(str(segment_folder(request, context, on_scan=tell).summary))


def _row(outcome: ScanOutcome) -> BatchRow:
    message = "Done by an earlier run." if outcome.status == DONE_BEFORE else outcome.message
    return BatchRow(
        name=outcome.scan.name,
        state=_STATES.get(outcome.status, outcome.status),
        message=message,
        volumes_ml=outcome.volumes_ml,
        output=str(outcome.output) if outcome.has_result else "",
        model=outcome.model,
        seconds=outcome.seconds,
        path=str(outcome.scan.path),
        series=outcome.scan.series or "",
    )


def segment_folder(request: FolderRequest, context: Context, on_scan: OnScan | None = None) -> FolderResult:
    """Segment every scan of a folder or list, here or on workers.

    Each scan gets a segmentation and a report (and a preview, if requested) at the same relative path in `output` as in
    `source`. A scan that an earlier run finished with the same model, options and contents is not segmented again. If
    any of these changed it is, unless its segmentation was modified since (for example, corrected manually): then it is
    kept and reported, unless `overwrite` is given. Several runs on the same folders share the work.

    Args:
        request: the request.
        context: receives progress of the whole folder; after a cancel finished results are kept, and the summary lists
            what is missing.
        on_scan: called for all scans at the start, and after each scan.

    Returns:
        The outcome of each scan. The manifest gets a line for each finished scan; the summary CSV follows.

    Raises:
        RequestError: if there is no scan, if the options do not fit, or if a package for the format or the workers is
            missing.
        OutputError: if the output folder is not writable.
        ModelNotFoundError, CheckpointError, DeviceError: if the named model or device cannot be used at all.
        CancelledError: on cancel.
    """
    format_named(request.suffix).require()
    if request.workers < 1:
        raise RequestError(f"The number of workers is 1 or more, not {request.workers}.")
    shard = read_shard(request.shard)
    uses_cluster = bool(request.scheduler) or request.workers > 1
    if uses_cluster:
        require_extra("cluster", "distributed", "cryptography")
        request = _with_whole_paths(request)
    found = interruptible(lambda: find_listed_scans(request.source, ignored=Path(request.output)), context.cancel)
    # Workers and later reports resolve scans from other folders.
    scans = [replace(scan, path=scan.path.absolute()) for scan in found]
    if not request.scheduler:
        _check(request, context)
    make_folder(Path(request.output))
    run = FolderRun(request, scans_of_shard(scans, shard), on_scan)
    with run.recorded():
        if uses_cluster:
            from HSAMSegmentLib.workflows.cohort.cluster_run import segment_on_cluster

            segment_on_cluster(run, context)
        else:
            _OneByOne(run, context).all()
    context.emit(Progress(1.0, "Done", eta_seconds=0.0))
    return run.result()


def _with_whole_paths(request: FolderRequest) -> FolderRequest:
    """Make paths absolute, so that workers in any folder understand them; model IDs stay unchanged."""
    model = Path(request.model)
    whole = str(model.absolute()) if model.suffix and model.is_file() else request.model
    return replace(request, output=str(Path(request.output).absolute()), model=whole)


def _check(request: FolderRequest, context: Context) -> None:
    """Detect a wrong device, model or organ before the first scan. On a cluster the workers do this."""
    choose_device(request.device)
    model = interruptible(lambda: context.models.named(request.model), context.cancel)
    if model is not None:
        selected_values(model.manifest.labels, request.options.organs)


class _OneByOne:
    """Segments the scans of a run in this process, those claimed by another run last."""

    def __init__(self, run: FolderRun, context: Context) -> None:
        self._run, self._context = run, context
        self._clock = _FolderClock(context, len(run.outcomes))

    def all(self) -> None:
        """Segment all scans in turn."""
        elsewhere = [index for index in range(len(self._run.outcomes)) if not self._try(index)]
        for place, index in enumerate(elsewhere):
            self._clock.wait_for_other_run(len(elsewhere) - place)
            while not self._try(index):
                self._context.cancel.raise_if_cancelled()
                time.sleep(_LOOK_SECONDS)

    def _try(self, index: int) -> bool:
        """Process one scan; return False if another run has it."""
        run, waiting = self._run, self._run.outcomes[index]
        claim = run.claims.claim(waiting.scan.name)
        if claim is None:
            return False
        try:
            self._do(index, waiting.scan, claim)
        except CancelledError:
            run.note(index, replace(waiting, status=CANCELLED))
            raise
        finally:
            claim.release()
        return True

    def _do(self, index: int, scan: Scan, claim: Claim) -> None:
        run, context = self._run, self._context
        context.cancel.raise_if_cancelled()
        with run.claims.one_try(scan.name) as poisoned:
            if poisoned:
                outcome = replace(run.outcomes[index], status=FAILED, message=poisoned)
            else:
                outcome = try_scan(run.request, scan, context, self._clock.for_scan(index, scan.name))
            run.note(index, outcome)


class _FolderClock:
    """Converts the progress of one scan into that of the folder."""

    def __init__(self, context: Context, count: int) -> None:
        self._report = context.emit
        self._count = count
        self._started = time.monotonic()

    def for_scan(self, index: int, name: str) -> ProgressCallback:
        """A progress callback for the scan with this index."""

        def report(inner: Progress) -> None:
            fraction = (index + inner.fraction) / self._count
            elapsed = time.monotonic() - self._started
            eta = elapsed * (1.0 - fraction) / fraction if fraction >= 0.02 else None
            place = f"scan {index + 1} of {self._count}, {name}"
            detail = f"{place}, {inner.detail}" if inner.detail else place
            self._report(Progress(fraction, inner.stage, detail, eta))

        return report

    def wait_for_other_run(self, count: int) -> None:
        """Report that only scans of another run are left."""
        detail = f"{count} of {self._count} scans are being segmented by another run"
        self._report(Progress((self._count - count) / self._count, "Waiting for another run", detail))
