"""Statistics of a whole folder of results, from the reports beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from HSAMSegmentLib.errors import HSAMSegmentError, OutputError, RequestError
from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.labels.grids import resample_labels
from HSAMSegmentLib.labels.segmentation_files import read_segmentation
from HSAMSegmentLib.measurement.scan import ScanMeasurements, measure_scan
from HSAMSegmentLib.measurement.table import check_table_path, is_table, table_rows, write_table
from HSAMSegmentLib.report.segmentation_report import REPORT_SUFFIX, read_report
from HSAMSegmentLib.runtime.atomic_files import check_output
from HSAMSegmentLib.workflows.segment.result_records import same_output


def check_folder_table(path: Path, *, overwrite: bool) -> None:
    """Ensure, before the scans are segmented, that their table can be written.

    An existing table is always replaced, since a second run over a folder only adds to it.

    Raises:
        OutputError: if the name does not end in .csv, or a file of another kind exists and may not be replaced.
    """
    check_table_path(path)
    check_output(path, overwrite=overwrite or is_table(path))


def write_folder_table(reports: Iterable[Path], folder: Path, path: Path, *, overwrite: bool = False) -> list[str]:
    """Write one table of all scans of a folder.

    Args:
        reports: the JSON reports of the scans.
        folder: folder of the reports; scans are named by their path in it.
        path: the table.
        overwrite: replace a file of another kind.

    Returns:
        Sentences on scans that could not be measured.

    Raises:
        OutputError: if the table cannot be written.
    """
    check_folder_table(path, overwrite=overwrite)
    rows, notes = _rows(reports, folder)
    write_table(rows, path, overwrite=True)
    return notes


def folder_rows(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of all scans with reports in a folder, and sentences on those that could not be measured.

    Raises:
        RequestError: if the folder does not exist or holds no report.
    """
    return _rows(reports_below(folder), folder)


def reports_below(folder: Path) -> list[Path]:
    """The reports in a folder and its subfolders, by name.

    Raises:
        RequestError: if the folder does not exist or holds no report.
    """
    if not folder.is_dir():
        raise RequestError(f"There is no folder {folder}; check the path.")
    found = sorted(path for path in folder.rglob(f"*{REPORT_SUFFIX}") if not path.name.startswith("."))
    if not found:
        raise RequestError(
            f"There is no report (*{REPORT_SUFFIX}) in {folder}; choose a folder of results, which a "
            "folder of scans was segmented into."
        )
    return found


def _rows(reports: Iterable[Path], folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for report in reports:
        try:
            rows += report_rows(report, folder)
        except HSAMSegmentError as error:
            notes.append(f"{report_name(report, folder)}: {error}")
    return rows, notes


def report_rows(path: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of one scan.

    Raises:
        RequestError: if the file is not a report, or has no measurements and its files are missing.
    """
    report = read_report(path)
    output = output_of(path, report)
    shown = output.relative_to(folder).as_posix() if output.is_relative_to(folder) else str(output)
    return table_rows(
        report_name(path, folder), measurements_of(path, report), model=report["model"]["id"], output=shown
    )


def measurements_of(path: Path, report: dict[str, Any]) -> ScanMeasurements:
    """The measurements in a report, or of its files if the report is older or the segmentation was corrected.

    Args:
        path: the report.
        report: its content.

    Raises:
        RequestError: if neither is available.
    """
    stored = report.get("measurements")
    try:
        if stored is None or was_changed(path, report):
            return _measured_now(path, report)
        return ScanMeasurements.from_json(stored)
    except (KeyError, TypeError, ValueError, HSAMSegmentError) as error:
        raise RequestError(
            f"The measurements in {path.name} are missing or out of date, and its files cannot be measured now "
            f"({error}); segment the scan again."
        ) from error


def was_changed(path: Path, report: dict[str, Any]) -> bool:
    """Whether the segmentation of a report has changed since, that is, was corrected."""
    output, record = output_of(path, report), report.get("record", {})
    return output.exists() and bool(record.get("output")) and not same_output(record, output)


def output_of(path: Path, report: dict[str, Any]) -> Path:
    """The segmentation of a report: next to it, even if the folder was renamed.

    Raises:
        RequestError: if the report names none.
    """
    name = report.get("record", {}).get("output", {}).get("name") or Path(report.get("output") or "").name
    if not name or Path(name).name != name:
        raise RequestError(f"The report {path.name} names no segmentation.")
    return path.with_name(name)


def report_name(path: Path, folder: Path) -> str:
    """Name of a report's scan: its path in the folder, without suffix."""
    inside = path.relative_to(folder) if path.is_relative_to(folder) else Path(path.name)
    return inside.as_posix()[: -len(REPORT_SUFFIX)] if path.name.endswith(REPORT_SUFFIX) else inside.as_posix()


def _measured_now(path: Path, report: dict[str, Any]) -> ScanMeasurements:
    source, series = report["input"]["path"], report["input"].get("dicom_series")
    if not source:
        raise OutputError("the scan was not in a file")
    volume = read_volume(source, series=series)
    labels = resample_labels(read_segmentation(output_of(path, report), grid=volume.geometry), volume.geometry)
    confidences = {item["name"]: item.get("confidence") for item in report["labels"]}
    known = (report.get("measurements") or {}).get("training_range_ml", {})
    ranges = {name: (float(low), float(high)) for name, (low, high) in known.items()}
    return measure_scan(labels, volume, confidences=confidences, ranges_ml=ranges)
