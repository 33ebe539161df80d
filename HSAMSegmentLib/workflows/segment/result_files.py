"""The files of one segmented scan: segmentation, picture and report, checked in advance and written atomically."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from HSAMSegmentLib.export.formats import format_of
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.inference.result import SegmentationResult
from HSAMSegmentLib.measurement.scan import ScanMeasurements, measure_scan
from HSAMSegmentLib.measurement.table import check_table_path, table_rows, write_table
from HSAMSegmentLib.report.preview_picture import check_preview_path, write_preview
from HSAMSegmentLib.report.segmentation_report import make_report, write_report
from HSAMSegmentLib.runtime.atomic_files import check_outputs
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.workflows.segment.replace_results import atomic_replace, finished_file, mend_interrupted
from HSAMSegmentLib.workflows.segment.result_records import make_record
from HSAMSegmentLib.workflows.segment.segment_request import OutputFiles, SegmentRequest


@dataclass(frozen=True)
class FinishedScan:
    """A scan that was segmented.

    Attributes:
        request: the request.
        volume: the scan.
        result: the result.
        segmenter: the model on its device.
        model_hash: SHA-256 of the model's file; empty without one.
    """

    request: SegmentRequest
    volume: Volume
    result: SegmentationResult
    segmenter: Segmenter
    model_hash: str


def check_output_files(files: OutputFiles, *, source: Path | None) -> None:
    """Ensure, before any work, that every output can be written; complete what a killed program left unfinished.

    Raises:
        OutputError: if one exists and may not be replaced, has an unknown suffix, or its folder is not writable.
        RequestError: if two outputs are the same file, if one is the scan itself, or if a package for the format is
            missing.
    """
    mend_interrupted(files.segmentation, files.report)
    chosen = format_of(files.segmentation, files.format)
    chosen.require()
    if files.preview is not None:
        check_preview_path(files.preview)
    if files.statistics is not None:
        check_table_path(files.statistics)
    beside = chosen.files(files.segmentation)[1:]
    check_outputs((*files.all(), *beside), overwrite=files.overwrite, source=source)


def write_outputs(done: FinishedScan, files: OutputFiles, cancel: CancelToken) -> None:
    """Write all files; the segmentation gets a temporary name and is renamed last.

    So an interruption leaves no segmentation without a report, which a later run would not dare to replace.

    Raises:
        OutputError: if a file cannot be written.
        CancelledError: on cancel.
    """
    plane, segmentation = done.segmenter.model.manifest.slices.plane, done.result.segmentation
    with finished_file(files.segmentation) as temporary:
        format_of(files.segmentation, files.format).write(segmentation, temporary, done.result.origin, False)
        if files.preview is not None:
            write_preview(done.volume, segmentation, files.preview, plane=plane, overwrite=files.overwrite)
        measured = None if files.report is None and files.statistics is None else _measured(done)
        if files.statistics is not None and measured is not None:
            rows = table_rows(done.volume.name, measured, model=done.result.model_id, output=str(files.segmentation))
            write_table(rows, files.statistics, overwrite=files.overwrite)
        content = None if files.report is None else _report(done, files, temporary, measured, cancel)

        def write() -> None:
            if content is not None and files.report is not None:
                write_report(content, files.report, overwrite=files.overwrite)

        atomic_replace(temporary, files.segmentation, overwrite=files.overwrite, write_report=write)


def _measured(done: FinishedScan) -> ScanMeasurements:
    ranges = done.segmenter.model.manifest.training_ranges
    return measure_scan(
        done.result.segmentation,
        done.volume,
        confidences={item.label.name: item.confidence for item in done.result.labels},
        ranges_ml={name: item.volume_ml for name, item in ranges.items() if item.volume_ml is not None},
    )


def _report(
    done: FinishedScan, files: OutputFiles, content: Path, measured: ScanMeasurements | None, cancel: CancelToken
) -> dict[str, Any]:
    manifest, options, source = done.segmenter.model.manifest, done.segmenter.options, done.request.input
    record = None
    if source.path:
        record = make_record(
            source=Path(source.path),
            series=source.series or None,
            model_id=manifest.id,
            model_hash=done.model_hash,
            options=options,
            output=files.segmentation,
            content=content,
            cancel=cancel,
        )
    return make_report(
        done.result,
        volume=done.volume,
        manifest=manifest,
        options=options,
        output=files.segmentation,
        record=record,
        measured=measured,
    )
