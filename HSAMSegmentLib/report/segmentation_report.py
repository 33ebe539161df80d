"""The JSON report of a segmentation: input, output, confidence, and how it was made."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from HSAMSegmentLib import __version__
from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.result import LabelResult, Plausibility, SegmentationResult, SliceConfidence
from HSAMSegmentLib.labels.label_set import Terminology
from HSAMSegmentLib.runtime.atomic_files import atomic_output
from HSAMSegmentLib.weights.manifest import Manifest

if TYPE_CHECKING:  # scipy, which the panel does not wait for
    from HSAMSegmentLib.measurement.scan import ScanMeasurements

REPORT_SCHEMA = "hsamsegment-report"
REPORT_SCHEMA_VERSION = 1
REPORT_SUFFIX = ".report.json"
STATEMENT = (
    "For research only. This is not a medical device: it was not cleared for clinical use, and every result has to be "
    "checked by a person who can judge it."
)
_PACKAGES = ("torch", "numpy", "scipy", "SimpleITK")


def make_report(
    result: SegmentationResult,
    *,
    volume: Volume,
    manifest: Manifest,
    options: SegmentOptions,
    output: Path | None = None,
    record: Mapping[str, Any] | None = None,
    measured: ScanMeasurements | None = None,
) -> dict[str, Any]:
    """Collect everything needed to judge and reproduce a segmentation, as plain JSON values.

    Args:
        result: result of the segmentation.
        volume: the scan.
        manifest: manifest of the model.
        options: segmentation options.
        output: the segmentation file, if any.
        record: hashes of input, model and output (`result_records.make_record`), for skipping finished scans.
        measured: statistics of the structures and unusual findings, if measured.

    Returns:
        An object with lengths in mm, volumes in mL, times in seconds, and indices in the volume's own IJK; confidence,
        agreement and margin are between 0 and 1 and computed before post-processing (see `confidence`).
    """
    return {
        "schema": REPORT_SCHEMA,
        "schema_version": REPORT_SCHEMA_VERSION,
        "statement": STATEMENT,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "input": _input_json(volume),
        "output": None if output is None else str(output),
        "model": _model_json(manifest),
        "options": options.to_json(),
        "slice_axis": result.slice_axis,
        "other_planes": list(result.other_planes),
        "labels": [_label_json(item) for item in result.labels],
        "plausibility": None if result.plausibility is None else _plausibility_json(result.plausibility),
        "measurements": None if measured is None else measured.to_json(),
        "warnings": list(result.warnings),
        "device": result.device,
        "precision": result.precision,
        "precision_reason": result.precision_reason,
        "batch_size": result.batch_size,
        "timings_s": {name: round(seconds, 3) for name, seconds in result.timings_s.items()},
        "software": software_versions(),
        "record": dict(record or {}),
    }


def write_report(report: Mapping[str, Any], path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a report as indented JSON, atomically.

    Raises:
        OutputError: if the file exists already or cannot be written.
    """
    path = Path(path)
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_output(path, overwrite=overwrite) as stream:
        # A file name may hold lone surrogates; JSON has escapes for them, which this error handler writes.
        stream.write(text.encode("utf-8", "backslashreplace") + b"\n")
    return path


def read_report(path: str | Path) -> dict[str, Any]:
    """Read what `write_report` wrote.

    Raises:
        RequestError: if the file is not a report, or has a newer version.
    """
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} is not a report of a segmentation ({error}).") from error
    if not isinstance(report, dict) or report.get("schema") != REPORT_SCHEMA:
        raise RequestError(f"{path} is not a report of a segmentation.")
    if int(report.get("schema_version", 0)) > REPORT_SCHEMA_VERSION:
        raise RequestError(f"{path} was written by a newer version of HSAMSegment. Update it.")
    return report


def software_versions() -> dict[str, str]:
    """Versions of this program, of Python and of the numerical packages."""
    from importlib import metadata  # slow to import, and the panel opens without it

    versions = {"hsamsegment": __version__, "python": platform.python_version(), "system": platform.platform()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "unknown"
    return versions


def _plausibility_json(found: Plausibility) -> dict[str, Any]:
    numbers = {name: round(getattr(found, name), 4) for name in ("score", "confidence", "volume", "intensity")}
    return {**numbers, "reasons": list(found.reasons)}


def _input_json(volume: Volume) -> dict[str, Any]:
    geometry = volume.geometry
    return {
        "name": volume.name,
        "path": None if volume.source is None else str(volume.source),
        "dicom_series": volume.series or None,
        "modality": volume.modality,
        "size": list(geometry.size),
        "spacing_mm": list(geometry.spacing_mm),
        "origin_lps_mm": list(geometry.origin_mm),
        "direction_lps": list(geometry.direction),
        "notes": list(volume.notes),
    }


def _model_json(manifest: Manifest) -> dict[str, Any]:
    return {
        "id": manifest.id,
        "title": manifest.title,
        "modality": manifest.modality,
        "license": manifest.license.name,
        "research_only": manifest.license.research_only,
        "citation": list(manifest.citation),
        "intensity": manifest.intensity.to_json(),
        "slices": manifest.slices.to_json(),
        "prediction": manifest.prediction.to_json(),
    }


def _label_json(item: LabelResult) -> dict[str, Any]:
    return {
        "value": item.label.value,
        "name": item.label.name,
        "color": list(item.label.color),
        "code": _code_json(item.label.terminology),
        "voxels": item.voxels,
        "volume_ml": round(item.volume_ml, 4),
        "confidence": _rounded(item.confidence),
        "agreement": _rounded(item.agreement),
        "margin": _rounded(item.margin),
        "bounding_box_ijk": None if item.bounding_box is None else list(item.bounding_box),
        "least_certain_slice": None if item.least_certain is None else _slice_json(item.least_certain),
        "slices": [_slice_json(entry) for entry in item.slices],
    }


def _slice_json(entry: SliceConfidence) -> dict[str, Any]:
    return {
        "index": entry.index,
        "position_ijk": list(entry.position_ijk),
        "voxels": entry.voxels,
        "confidence": _rounded(entry.confidence),
        "agreement": _rounded(entry.agreement),
        "margin": _rounded(entry.margin),
    }


def _code_json(terminology: Terminology | None) -> dict[str, Any] | None:
    return None if terminology is None else asdict(terminology)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
