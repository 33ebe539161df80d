"""The report of a folder of results: one web page with distributions, unusual findings, and pictures."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from HSAMSegmentLib.errors import HSAMSegmentError, OutputError
from HSAMSegmentLib.export.surface_files import SURFACE_SUFFIXES
from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.labels.grids import resample_labels
from HSAMSegmentLib.labels.segmentation_files import read_segmentation
from HSAMSegmentLib.measurement.findings import Finding
from HSAMSegmentLib.report.cohort.cohort import CHANGED, GONE, PLAUSIBILITY, Cohort, CohortScan, with_outliers
from HSAMSegmentLib.report.cohort.page import cohort_page
from HSAMSegmentLib.report.segmentation_report import REPORT_SUFFIX, read_report
from HSAMSegmentLib.report.thumbnail import make_thumbnail
from HSAMSegmentLib.runtime.atomic_files import atomic_output, check_outputs
from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.results.folder_statistics import (
    measurements_of,
    output_of,
    report_name,
    reports_below,
    was_changed,
)

_SUMMARIES = "summary*.csv"
_PREVIEW_SUFFIX = ".preview.png"
_SEGMENTED = ("done", "done before")
_DOUBTFUL = 0.5


@dataclass(frozen=True)
class CohortReportRequest:
    """Report on a folder of results.

    Attributes:
        folder: folder with the results of a folder of scans.
        output: the page, an .html file.
        title: headline; "" for the name of the folder.
        pictures: include a picture of each scan, for which it is read again.
        overwrite: replace an existing page.
    """

    folder: Path
    output: Path
    title: str = ""
    pictures: bool = True
    overwrite: bool = False


def write_cohort_report(request: CohortReportRequest, context: Context) -> Cohort:
    """Write the page, atomically.

    Returns:
        The content of the page.

    Raises:
        RequestError: if the folder does not exist or holds no report.
        OutputError: if the page exists and may not be replaced, does not end in .html, or cannot be written.
        CancelledError: on cancel.
    """
    if request.output.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f'The report of a folder is an .html file, not "{request.output.name}".')
    check_outputs([request.output], overwrite=request.overwrite)
    scans: list[CohortScan] = []
    notes: list[str] = []
    reports = reports_below(request.folder)
    for number, path in enumerate(reports):
        context.cancel.raise_if_cancelled()
        context.emit(Progress(number / len(reports), "Reading the results", report_name(path, request.folder)))
        try:
            scans.append(_scan(path, request, notes))
        except HSAMSegmentError as error:
            notes.append(f"{report_name(path, request.folder)}: {error}")
    title = request.title or f"Segmentations in {request.folder.resolve().name}"
    cohort = Cohort(title, with_outliers(scans), tuple(_not_segmented(request.folder)), tuple(notes))
    page = cohort_page(cohort, request.output)
    with atomic_output(request.output, overwrite=request.overwrite) as stream:
        stream.write(page.encode("utf-8", "backslashreplace"))
    context.emit(Progress(1.0, "Done", eta_seconds=0.0))
    return cohort


def _scan(path: Path, request: CohortReportRequest, notes: list[str]) -> CohortScan:
    report, name = read_report(path), report_name(path, request.folder)
    measured = measurements_of(path, report)
    segmentation = output_of(path, report)
    picture = None
    if request.pictures and segmentation.exists() and not segmentation.name.lower().endswith(SURFACE_SUFFIXES):
        try:
            picture = _picture(report, segmentation)
        except (HSAMSegmentError, ValueError) as error:
            notes.append(f"{name} has no picture: {error}")
    preview = path.with_name(path.name[: -len(REPORT_SUFFIX)] + _PREVIEW_SUFFIX)
    files = (("segmentation", segmentation), ("report", path), ("picture", preview))
    return CohortScan(
        name=name,
        measured=measured,
        model=str(report["model"]["id"]),
        findings=(*measured.findings, *_findings_of_scan(path, report, segmentation)),
        files=tuple((title, file) for title, file in files if file.exists()),
        picture=picture,
    )


def _findings_of_scan(path: Path, report: dict[str, Any], segmentation: Path) -> Iterator[Finding]:
    """Findings about a scan as a whole."""
    fit = report.get("plausibility")
    if fit is not None and fit["score"] < _DOUBTFUL:
        why = f": {'; '.join(fit['reasons'])}" if fit.get("reasons") else ""
        yield Finding(PLAUSIBILITY, "", f"may not suit the model (plausibility {fit['score']:.2f} of 1){why}")
    if not segmentation.exists():
        yield Finding(GONE, "", f"its segmentation {segmentation.name} is gone")
    elif was_changed(path, report):
        yield Finding(
            CHANGED, "", "its segmentation was changed since the model made it; the numbers are of the new one"
        )


def _picture(report: dict[str, Any], segmentation: Path) -> bytes:
    source = report["input"]["path"]
    if not source:
        raise OutputError("the scan was not in a file")
    volume = read_volume(source, series=report["input"].get("dicom_series"))
    labels = read_segmentation(segmentation, grid=volume.geometry)
    return make_thumbnail(volume, resample_labels(labels, volume.geometry))


def _not_segmented(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Scans that the folder's summaries, one per shard, list as failed, skipped, or unfinished."""
    for summary in sorted(folder.glob(_SUMMARIES)):
        with open(summary, encoding="utf-8", errors="replace", newline="") as stream:
            for row in csv.DictReader(stream):
                state = row.get("status") or ""
                if state and state not in _SEGMENTED:
                    yield row.get("scan") or "", state, row.get("message") or ""
