"""The job that segments every scan of a folder."""

from __future__ import annotations

from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.runtime.serialization import to_plain
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.events import ItemDone
from HSAMSegmentLib.workflows.segment_folder import scan_outcome as outcomes
from HSAMSegmentLib.workflows.segment_folder.folder_request import (
    CANCELLED,
    DONE,
    FAILED,
    SKIPPED,
    WAITING,
    BatchRow,
    FolderRequest,
    FolderSummary,
)
from HSAMSegmentLib.workflows.segment_folder.segment_folder import segment_folder

_STATES = {
    outcomes.DONE: DONE,
    outcomes.DONE_BEFORE: DONE,
    outcomes.FAILED: FAILED,
    outcomes.SKIPPED: SKIPPED,
    outcomes.CANCELLED: CANCELLED,
    outcomes.WAITING: WAITING,
}


def run(request: FolderRequest, context: Context) -> FolderSummary:
    """Segment every scan of a folder; each is reported as an `ItemDone` with the plain values of a `BatchRow`.

    Raises:
        HSAMSegmentError: for problems that affect all scans: the folder, the model, the device.
    """
    context.emit(Progress(0.0, "Loading the model"))

    def tell(index: int, count: int, outcome: outcomes.ScanOutcome) -> None:
        context.emit(ItemDone(index, count, to_plain(_row(outcome))))

    result = segment_folder(request, context, on_scan=tell)
    return FolderSummary(str(result.summary))


def _row(outcome: outcomes.ScanOutcome) -> BatchRow:
    message = "Done by an earlier run." if outcome.status == outcomes.DONE_BEFORE else outcome.message
    return BatchRow(
        name=outcome.scan.name,
        state=_STATES[outcome.status],
        message=message,
        volumes_ml=outcome.volumes_ml,
        output=str(outcome.output) if outcome.has_result else "",
        model=outcome.model,
        seconds=outcome.seconds,
        path=str(outcome.scan.path),
        series=outcome.scan.series or "",
    )
