"""Process one scan of a folder: skip it if an earlier run did it, else segment it. The same here and on a worker."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from HSAMSegmentLib.errors import CancelledError, HSAMSegmentError, RequestError
from HSAMSegmentLib.export.formats import format_named
from HSAMSegmentLib.images.volume import VolumeInput
from HSAMSegmentLib.io.scan_folder import Scan
from HSAMSegmentLib.report.segmentation_report import REPORT_SUFFIX, read_report
from HSAMSegmentLib.runtime.atomic_files import make_folder
from HSAMSegmentLib.runtime.progress import Progress, ProgressCallback, ignore_progress
from HSAMSegmentLib.workflows.context import Context, progress_only
from HSAMSegmentLib.workflows.segment.replace_results import mend_interrupted
from HSAMSegmentLib.workflows.segment.result_records import comparable_options, same_input, same_output
from HSAMSegmentLib.workflows.segment.segment_request import OutputFiles, SegmentRequest
from HSAMSegmentLib.workflows.segment.segment_scan import segment_scan
from HSAMSegmentLib.workflows.segment_folder.folder_request import FolderRequest
from HSAMSegmentLib.workflows.segment_folder.scan_outcome import (
    DONE,
    DONE_BEFORE,
    FAILED,
    NOT_STARTED,
    SKIPPED,
    ScanOutcome,
)

logger = logging.getLogger(__name__)

PREVIEW_SUFFIX = ".preview.png"


def output_files(request: FolderRequest, scan: Scan) -> OutputFiles:
    """Paths of the results of a scan."""
    base = Path(request.output) / scan.name
    return OutputFiles(
        base.with_name(base.name + format_named(request.suffix).suffix),
        base.with_name(base.name + PREVIEW_SUFFIX) if request.preview else None,
        base.with_name(base.name + REPORT_SUFFIX),
    )


def waiting_outcome(request: FolderRequest, scan: Scan) -> ScanOutcome:
    """The outcome of a scan that was not started yet."""
    return ScanOutcome(scan, NOT_STARTED, output=output_files(request, scan).segmentation)


def try_scan(
    request: FolderRequest, scan: Scan, context: Context, progress: ProgressCallback = ignore_progress
) -> ScanOutcome:
    """Process one scan; any problem with it becomes the message of a failed outcome.

    Raises:
        CancelledError: on cancel.
    """
    started = time.perf_counter()
    try:
        outcome = do_scan(request, scan, context, progress)
    except CancelledError:
        raise
    except Exception as error:  # one bad scan, whatever is wrong with it, must not stop the others
        logger.warning("%s failed", scan.path, exc_info=True)
        outcome = replace(waiting_outcome(request, scan), status=FAILED, message=sentence_of(error))
    return replace(outcome, seconds=time.perf_counter() - started)


def do_scan(request: FolderRequest, scan: Scan, context: Context, progress: ProgressCallback) -> ScanOutcome:
    """Process one scan, unless an earlier run did it.

    Raises:
        HSAMSegmentError: as `segment_scan`; RequestError also if existing files are not ours to replace.
    """
    waiting, files = waiting_outcome(request, scan), output_files(request, scan)
    if scan.skipped:
        return replace(waiting, status=SKIPPED, message=scan.skipped)
    if scan.problem:
        raise RequestError(scan.problem)
    earlier = find_earlier(request, scan, context)
    if earlier is not None and earlier.up_to_date:
        progress(Progress(1.0, "Done before"))
        return replace(
            waiting, status=DONE_BEFORE, model=earlier.model, found=earlier.found, volumes_ml=earlier.volumes_ml
        )
    make_folder(files.segmentation.parent)
    single = SegmentRequest(
        input=VolumeInput(path=str(scan.path), series=scan.series or ""),
        model=request.model,
        device=request.device,
        options=request.options,
        files=replace(files, overwrite=request.overwrite or earlier is not None),
    )
    result = segment_scan(single, context.with_events(progress_only(progress), context.cancel))
    return replace(
        waiting,
        status=DONE,
        message=" ".join(result.warnings),
        model=result.model_id,
        found=tuple(item.label.name for item in result.found),
        volumes_ml=tuple((item.label.name, item.volume_ml) for item in result.labels),
    )


@dataclass(frozen=True)
class EarlierResult:
    """Results of an earlier run for a scan.

    Attributes:
        up_to_date: whether this run would produce the same.
        model: ID of the model that produced it.
        volumes_ml: name and volume of every requested label.
    """

    up_to_date: bool
    model: str = ""
    volumes_ml: tuple[tuple[str, float], ...] = ()

    @property
    def found(self) -> tuple[str, ...]:
        """Names of the labels that were found."""
        return tuple(name for name, volume in self.volumes_ml if volume > 0)


def find_earlier(request: FolderRequest, scan: Scan, context: Context) -> EarlierResult | None:
    """Find results of an earlier run for this scan that may be kept or replaced; None if there are none.

    Raises:
        RequestError: if there are files that are not ours to replace.
    """
    files = output_files(request, scan)
    mend_interrupted(files.segmentation, files.report)
    if request.overwrite or files.report is None:
        return None
    if not files.segmentation.exists():
        return EarlierResult(up_to_date=False) if files.report.exists() else None
    if not files.report.exists():
        raise RequestError(f"{files.segmentation} exists and is not from an earlier run; it was left alone.")
    report = read_report(files.report)
    record = report.get("record", {})
    same_work = _is_fresh(record, request, scan, context)
    fresh = same_work and (files.preview is None or files.preview.exists())
    if not fresh and not same_output(record, files.segmentation):
        raise RequestError(_left_alone(files.segmentation.name, same_work))
    volumes = tuple((item["name"], float(item.get("volume_ml", 0.0))) for item in report.get("labels", []))
    return EarlierResult(fresh, record.get("model", {}).get("id", ""), volumes)


def _left_alone(name: str, same_work: bool) -> str:
    if same_work:
        return (
            f"{name} was changed since it was written, and its preview is missing; it was left alone. Move it away, "
            "allow overwriting, or ask for no previews."
        )
    return (
        f"{name} was changed since it was written, and scan, model or options are others now; it was left alone. Move "
        "it away, or allow overwriting."
    )


def _is_fresh(record: dict[str, Any], request: FolderRequest, scan: Scan, context: Context) -> bool:
    recorded = record.get("model", {})
    named = context.models.named(request.model)
    model_id = recorded.get("id", "") if named is None else named.manifest.id
    return (
        recorded.get("id") == model_id
        and bool(recorded.get("sha256"))
        and recorded.get("sha256") == context.models.hash_of(model_id)
        and record.get("options") == comparable_options(request.options)
        and same_input(record, scan.path, scan.series, context.cancel)
    )


def sentence_of(error: BaseException) -> str:
    """The message of an error for the user."""
    if isinstance(error, HSAMSegmentError):
        return str(error)
    if isinstance(error, MemoryError):
        return "Not enough memory for this scan."
    return f"Something unexpected happened ({type(error).__name__}: {error})."
