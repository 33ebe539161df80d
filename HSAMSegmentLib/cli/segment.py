"""`hsam-segment segment`: segment the organs in one scan, or in every scan of a folder."""

from __future__ import annotations

import argparse

from HSAMSegmentLib.cli.cohort_arguments import first_given, names_many_scans, with_cohort, with_threads
from HSAMSegmentLib.cli.console import Console, format_seconds, format_table
from HSAMSegmentLib.errors import RequestError, VolumeError
from HSAMSegmentLib.export.formats import ENDINGS
from HSAMSegmentLib.images.volume import VolumeInput
from HSAMSegmentLib.inference.options import PostprocessOptions, SegmentOptions
from HSAMSegmentLib.inference.result import LabelResult, SegmentationResult
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.workflows.context import Context, progress_only
from HSAMSegmentLib.workflows.segment.segment_request import OutputFiles, SegmentRequest
from HSAMSegmentLib.workflows.segment_folder.folder_request import FolderRequest

MOST_ROWS = 100
"""For larger cohorts only failed scans are shown; the summary lists all of them."""


def run(arguments: argparse.Namespace, cancel: CancelToken) -> int:
    """Segment and print the results; return the exit code.

    Raises:
        HSAMSegmentError: as `segment_file` and `segment_folder`.
    """
    if not (arguments.input.exists() or names_many_scans(arguments)):
        raise RequestError(f"There is no file or folder {arguments.input}.")
    options = with_threads(_options(arguments), arguments)
    segment = _segment_folder if _wants_folder(arguments) else _segment_scan
    with Console(quiet=arguments.quiet) as console:
        return segment(arguments, options, console, cancel)


def _wants_folder(arguments: argparse.Namespace) -> bool:
    """Whether to segment every scan of the input: from folder to folder. A folder to a file is one DICOM series.

    Raises:
        RequestError: if arguments for one scan are given for a folder of scans, or vice versa.
    """
    is_file_name = arguments.output.name.lower().endswith(ENDINGS)
    if names_many_scans(arguments) and is_file_name:
        raise RequestError(f"{arguments.input} names many scans, and {arguments.output} one file; give a folder.")
    if names_many_scans(arguments) or (arguments.input.is_dir() and not is_file_name):
        given = [name for name in ("preview", "report", "series") if getattr(arguments, name) is not None]
        if given:
            raise RequestError(
                f"--{given[0]} is for one scan, and every scan of {arguments.input} is to be segmented into the folder "
                f"{arguments.output}. Each gets a report there anyway, and a picture with --previews; for one DICOM "
                "series give OUTPUT the name of a file, for example organs.seg.nrrd."
            )
        return True
    if arguments.previews:
        raise RequestError("--previews is for a folder of scans, with a folder as OUTPUT; for one scan see --preview.")
    if first_given(arguments):
        raise RequestError(f"{first_given(arguments)} is for a folder or list of scans, with a folder as OUTPUT.")
    return False


def _options(arguments: argparse.Namespace) -> SegmentOptions:
    untouched = arguments.no_postprocessing
    return SegmentOptions(
        organs=arguments.organs,
        roi=arguments.roi,
        batch_size=arguments.batch_size,
        precision="full" if arguments.full_precision else "auto",
        view_averaging=not arguments.no_tta,
        flip_averaging=arguments.flip_averaging,
        postprocess=PostprocessOptions(
            largest_piece=not (untouched or arguments.keep_islands),
            fill_holes=not (untouched or arguments.keep_holes),
            minimum_ml=0.0 if untouched or arguments.keep_specks else PostprocessOptions.minimum_ml,
        ),
    )


def _segment_scan(arguments: argparse.Namespace, options: SegmentOptions, console: Console, cancel: CancelToken) -> int:
    from HSAMSegmentLib.workflows.segment.segment_scan import segment_scan

    files = OutputFiles(
        arguments.output,
        arguments.preview,
        arguments.report,
        arguments.overwrite,
        statistics=arguments.statistics,
        format=arguments.format or "",
    )
    request = SegmentRequest(
        input=VolumeInput(path=str(arguments.input), series=arguments.series or ""),
        model=str(arguments.model or ""),
        device=arguments.device,
        options=options,
        files=files,
    )
    result = segment_scan(request, Context(progress_only(console.progress), cancel))
    console.result(_table(result))
    for warning in result.warnings:
        console.note(warning)
    console.note(
        f"{arguments.output} was written with {result.model_id} on {result.device} "
        f"in {format_seconds(result.timings_s['total'])}. For research only, not for clinical decisions."
    )
    return 0


def _segment_folder(
    arguments: argparse.Namespace, options: SegmentOptions, console: Console, cancel: CancelToken
) -> int:
    from HSAMSegmentLib.report.segmentation_report import REPORT_SUFFIX
    from HSAMSegmentLib.workflows.results.folder_statistics import check_folder_table, write_folder_table
    from HSAMSegmentLib.workflows.segment_folder.scan_outcome import DONE, DONE_BEFORE, FAILED, SKIPPED
    from HSAMSegmentLib.workflows.segment_folder.segment_folder import segment_folder

    request = FolderRequest(
        source=str(arguments.input),
        output=str(arguments.output),
        model=str(arguments.model or ""),
        device=arguments.device,
        options=options,
        preview=arguments.previews,
        suffix=arguments.format or FolderRequest.suffix,
        overwrite=arguments.overwrite,
    )
    if arguments.statistics is not None:
        check_folder_table(arguments.statistics, overwrite=arguments.overwrite)
    result = segment_folder(with_cohort(request, arguments), Context(progress_only(console.progress), cancel))
    shown = [item for item in result.scans if len(result.scans) <= MOST_ROWS or item.status == FAILED]
    rows = [(item.scan.name, item.status, item.model, ", ".join(item.found) or "-") for item in shown]
    if rows:
        console.result(format_table(("scan", "status", "model", "found"), rows))
    for item in shown:
        if item.message:
            console.note(f"{item.scan.name}: {item.message}")
    if arguments.statistics is not None:
        finished = [item.scan.name + REPORT_SUFFIX for item in result.scans if item.status in (DONE, DONE_BEFORE)]
        folder = arguments.output
        reports, table = [folder / name for name in finished], arguments.statistics
        for note in write_folder_table(reports, folder, table, overwrite=arguments.overwrite):
            console.note(note)
    counts = ", ".join(f"{result.count(status)} {status}" for status in (DONE, DONE_BEFORE, FAILED, SKIPPED))
    console.note(f"{counts}; see {result.summary}. For research only, not for clinical decisions.")
    return VolumeError.exit_code if result.count(FAILED) else 0


def _table(result: SegmentationResult) -> str:
    return format_table(("organ", "mL", "confidence"), [_row(item) for item in result.labels])


def _row(item: LabelResult) -> tuple[str, str, str]:
    if not item.voxels:
        return (item.label.name, "-", "not found")
    confidence = "-" if item.confidence is None else f"{100 * item.confidence:.0f} %"
    return (item.label.name, f"{item.volume_ml:.1f}", confidence)
