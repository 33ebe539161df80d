"""Folders of results as a run over a folder of scans leaves them, without a network."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from small_scans import write_scan

from HSAMSegmentLib.export.formats import save_segmentation
from HSAMSegmentLib.export.source_images import Origin
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.measurement.scan import measure_scan
from HSAMSegmentLib.report.segmentation_report import REPORT_SCHEMA, REPORT_SCHEMA_VERSION, REPORT_SUFFIX
from HSAMSegmentLib.runtime.disk import sha256_of


def write_result(
    folder: Path,
    name: str,
    volume: Volume,
    segmentation: Segmentation,
    *,
    scan: Path | None = None,
    with_measurements: bool = True,
    plausibility: dict | None = None,
    **known,
) -> Path:
    """Write segmentation and report of one scan; returns the report.

    Args:
        folder: of the results.
        name: of the scan.
        volume: the scan.
        segmentation: its labels.
        scan: file that the scan is written to; none for a scan without a file.
        with_measurements: whether the report has them, as those of older versions do not.
        plausibility: as in the report.
        known: confidences and ranges, as for `measure_scan`.
    """
    if scan is not None:
        write_scan(scan, volume)
    path = folder / f"{name}.seg.nrrd"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_segmentation(segmentation, path, Origin())
    measured = measure_scan(segmentation, volume, **known)
    confidences = known.get("confidences", {})
    report = {
        "schema": REPORT_SCHEMA,
        "schema_version": REPORT_SCHEMA_VERSION,
        "input": {"name": name, "path": None if scan is None else str(scan), "dicom_series": None},
        "output": str(path),
        "model": {"id": "abdomen-ct"},
        "labels": [
            {"name": item.structure, "volume_ml": item.volume_ml, "confidence": confidences.get(item.structure)}
            for item in measured.statistics
        ],
        "plausibility": plausibility,
        "measurements": measured.to_json() if with_measurements else None,
        "record": {"output": {"name": path.name, "sha256": sha256_of(path)}},
    }
    target = folder / f"{name}{REPORT_SUFFIX}"
    target.write_text(json.dumps(report), encoding="utf-8")
    return target


def write_summary(folder: Path, rows: list[tuple[str, str, str]], name: str = "summary.csv") -> None:
    """Write the summary of a run: name, status and message of each scan."""
    with open(folder / name, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("scan", "status", "message"))
        writer.writerows(rows)
