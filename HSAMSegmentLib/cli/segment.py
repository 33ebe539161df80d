"""`hsam-segment segment`: find the organs in one scan, or in every scan of a folder."""

from __future__ import annotations

import argparse

from HSAMSegmentLib.cli.console import Console, format_seconds, format_table
from HSAMSegmentLib.errors import RequestError, VolumeError
from HSAMSegmentLib.inference.options import PostprocessOptions, SegmentOptions
from HSAMSegmentLib.inference.result import LabelResult, SegmentationResult
from HSAMSegmentLib.labels.segmentation_files import SEGMENTATION_OUTPUT_SUFFIXES
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.inputs import VolumeInput
from HSAMSegmentLib.workflows.segment.folder_request import FolderRequest
from HSAMSegmentLib.workflows.segment.segment_request import OutputFiles, SegmentRequest


def run(arguments: argparse.Namespace, cancel: CancelToken) -> int:
    """Segment and print what was found; returns the exit code.

    Raises:
        HSAMSegmentError: as `segment_file` and `segment_folder`.
    """
    if not arguments.input.exists():
        raise RequestError(f"There is no file or folder {arguments.input}.")
    options = _options(arguments)
    segment = _segment_folder if _wants_folder(arguments) else _segment_scan
    with Console(quiet=arguments.quiet) as console:
        return segment(arguments, options, console, cancel)


def _wants_folder(arguments: argparse.Namespace) -> bool:
    """Whether every scan of the input is meant: a folder to a folder. A folder to a file is one DICOM series.

    Raises:
        RequestError: if arguments for one scan or for a folder of scans are given for the other.
    """
    is_file_name = arguments.output.name.lower().endswith(SEGMENTATION_OUTPUT_SUFFIXES)
    if arguments.input.is_dir() and not is_file_name:
        given = [name for name in ("preview", "report", "series") if getattr(arguments, name) is not None]
        if given:
            raise RequestError(
                f"--{given[0]} is for one scan, and every scan of {arguments.input} is to be segmented into the folder "
                f"{arguments.output}. Each gets a report there anyway, and a picture with --previews; for one DICOM "
                "series give OUTPUT the name of a file, for example organs.seg.nrrd."
            )
        return True
    if arguments.previews or arguments.format is not None:
        name = "--previews" if arguments.previews else "--format"
        raise RequestError(f"{name} is for a folder of scans, with a folder as OUTPUT; for one scan see --preview.")
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

    files = OutputFiles(arguments.output, arguments.preview, arguments.report, arguments.overwrite)
    request = SegmentRequest(
        input=VolumeInput(path=str(arguments.input), series=arguments.series or ""),
        model=str(arguments.model or ""),
        device=arguments.device,
        options=options,
        files=files,
    )
    result = segment_scan(request, Context(console.progress, cancel))
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
    from HSAMSegmentLib.workflows.segment.segment_folder import DONE, DONE_BEFORE, FAILED, SKIPPED, segment_folder

    request = FolderRequest(
        source=str(arguments.input),
        output=str(arguments.output),
        model=str(arguments.model or ""),
        device=arguments.device,
        options=options,
        preview=arguments.previews,
        suffix=arguments.format or SEGMENTATION_OUTPUT_SUFFIXES[0],
        overwrite=arguments.overwrite,
    )
    result = segment_folder(request, Context(console.progress, cancel))
    rows = [(item.scan.name, item.status, item.model, ", ".join(item.found) or "-") for item in result.scans]
    console.result(format_table(("scan", "status", "model", "found"), rows))
    for item in result.scans:
        if item.message:
            console.note(f"{item.scan.name}: {item.message}")
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
