"""The job that segments every scan of a folder."""

from __future__ import annotations

from HSAMSegmentLib.runtime.progress import CancelToken, Progress
from HSAMSegmentLib.workflows.events import ItemDone, Result
from HSAMSegmentLib.workflows.run import Emit, JobContext
from HSAMSegmentLib.workflows.segment import segment_folder as folders
from HSAMSegmentLib.workflows.segment.folder_request import CANCELLED, DONE, FAILED, WAITING, BatchRow, FolderRequest
from HSAMSegmentLib.workflows.segment.volume_job import warm_model

_STATES = {
    folders.DONE: DONE,
    folders.DONE_BEFORE: DONE,
    folders.FAILED: FAILED,
    folders.CANCELLED: CANCELLED,
    folders.WAITING: WAITING,
}


def segment_all(request: FolderRequest, emit: Emit, cancel: CancelToken, context: JobContext) -> Result:
    """Segment; each scan is told as an `ItemDone` with the JSON values of a `BatchRow`, waiting at first.

    The result holds the "summary", the path of the CSV file.

    Raises:
        HSAMSegmentError: from what concerns all scans: the folder, the model, the device.
    """
    emit(Progress(0.0, "Loading the model"))
    model = warm_model(request.model, context)

    def tell(index: int, count: int, outcome: folders.ScanOutcome) -> None:
        emit(ItemDone(index, count, _row(outcome).to_json()))

    result = folders.segment_folder(
        request.source,
        request.output,
        model=model,
        device=request.device,
        options=request.options,
        preview=request.preview,
        progress=emit,
        on_scan=tell,
        cancel=cancel,
    )
    return Result({"summary": str(result.summary)})


def _row(outcome: folders.ScanOutcome) -> BatchRow:
    finished = outcome.status in (folders.DONE, folders.DONE_BEFORE)
    message = "Done by an earlier run." if outcome.status == folders.DONE_BEFORE else outcome.message
    return BatchRow(
        name=outcome.scan.name,
        state=_STATES[outcome.status],
        message=message,
        volumes_ml=outcome.volumes_ml,
        output=str(outcome.output) if finished else "",
        model=outcome.model,
        seconds=outcome.seconds,
        path=str(outcome.scan.path),
        series=outcome.scan.series or "",
    )
