"""Records of how results were made, by which a second run over a folder detects finished and corrected ones."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.io.dicom.sniff import is_dicom_file
from HSAMSegmentLib.runtime.disk import sha256_of
from HSAMSegmentLib.runtime.progress import CancelToken

_DETACHED_HEADERS = (".mhd", ".nhdr", ".hdr", ".img")
_RESULTS = (".seg.dcm", ".rtstruct.dcm")
"""Suffixes of results in DICOM formats in a folder of scans."""
_NO_EFFECT = ("batch_size", "threads")
"""Options that affect speed but not the labels."""


def input_stamp(path: Path) -> dict[str, int]:
    """Number, size and latest change of the files of a scan: cheap to compare."""
    files = input_files(path)
    status = [file.stat() for file in files]
    return {
        "files": len(files),
        "bytes": sum(item.st_size for item in status),
        "modified_ns": max((item.st_mtime_ns for item in status), default=0),
    }


def input_files(path: Path) -> list[Path]:
    """The files of a scan: itself, the DICOM files below a folder, or a header with its data file.

    Other content of a DICOM folder, such as the results of an earlier run, is not part of the scan.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        files = [file for file in files if not file.name.lower().endswith(_RESULTS)]
        return [file for file in files if os.access(file, os.R_OK) and is_dicom_file(file)] or files
    if path.suffix.lower() in _DETACHED_HEADERS:
        return sorted(file for file in path.parent.glob(f"{path.stem}.*") if file.is_file())
    return [path]


def content_hash(path: Path, cancel: CancelToken | None = None) -> str:
    """SHA-256 over the contents of all files of a scan, ignoring names and dates."""
    check = (lambda: None) if cancel is None else cancel.raise_if_cancelled
    files = input_files(path)
    if len(files) == 1:
        return sha256_of(files[0], check)
    return sha256("".join(sha256_of(file, check) for file in files).encode()).hexdigest()


def make_record(
    *,
    source: Path,
    series: str | None,
    model_id: str,
    model_hash: str,
    options: SegmentOptions,
    output: Path,
    content: Path,
    cancel: CancelToken | None = None,
) -> dict[str, Any]:
    """Facts by which a later run recognizes this result, as plain JSON values.

    Args:
        source: the segmented file or folder.
        series: its DICOM series, or None.
        model_id: ID of the model.
        model_hash: SHA-256 of its file.
        options: segmentation options.
        output: the segmentation file.
        content: temporary path of the finished content before it is renamed.
        cancel: checked between chunks of the files.

    Raises:
        CancelledError: on cancel.
    """
    return {
        "input": {"stamp": input_stamp(source), "sha256": content_hash(source, cancel), "series": series},
        "model": {"id": model_id, "sha256": model_hash},
        "options": comparable_options(options),
        "output": {"name": output.name, "sha256": sha256_of(content)},
    }


def comparable_options(options: SegmentOptions) -> dict[str, Any]:
    """The options that affect the labels, as restored from JSON."""
    plain = {name: value for name, value in options.to_json().items() if name not in _NO_EFFECT}
    found: dict[str, Any] = json.loads(json.dumps(plain))
    return found


def same_input(record: Mapping[str, Any], source: Path, series: str | None, cancel: CancelToken | None = None) -> bool:
    """Whether a scan is the one of a record; contents are compared only if dates or sizes differ."""
    recorded = record.get("input", {})
    if recorded.get("series") != series:
        return False
    stamp = input_stamp(source)
    if recorded.get("stamp") == stamp:
        return True
    same_size = all(recorded.get("stamp", {}).get(name) == stamp[name] for name in ("files", "bytes"))
    return same_size and recorded.get("sha256") == content_hash(source, cancel)


def same_output(record: Mapping[str, Any], output: Path, *, name: str = "") -> bool:
    """Whether a segmentation file is unchanged since it was written, that is, not corrected.

    Args:
        record: record of the segmentation.
        output: the file.
        name: its final name, if it still has another one.
    """
    recorded = record.get("output", {})
    found: bool = recorded.get("name") == (name or output.name) and recorded.get("sha256") == sha256_of(output)
    return found
