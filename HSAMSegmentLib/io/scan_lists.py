"""Lists of scans: a folder, a BIDS data set, a glob pattern, a CSV file with IDs, or paths on standard input."""

from __future__ import annotations

import csv
import glob
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from HSAMSegmentLib.errors import RequestError, VolumeError
from HSAMSegmentLib.io.image_files import name_without_suffix
from HSAMSegmentLib.io.scan_folder import Scan, find_scans, with_unique_names

STANDARD_INPUT = "-"
_PATH_COLUMNS = ("path", "image", "scan", "file")
_ID_COLUMNS = ("id", "case", "name", "subject")
_SERIES_COLUMN = "series"
_MAGIC = frozenset("*?[")

_BIDS_FILE = "dataset_description.json"
_BIDS_TYPES = frozenset({"anat", "ct", "pet"})
"""Session folders with anatomical images; func, dwi and others hold series over time or directions."""


def is_list(source: str) -> bool:
    """Whether this names many scans without being a folder: a glob pattern, a CSV file or standard input."""
    return source == STANDARD_INPUT or source.lower().endswith(".csv") or is_pattern(source)


def is_pattern(source: str) -> bool:
    """Whether this is a glob pattern and not an existing file or folder of that name."""
    return bool(_MAGIC & set(source)) and not Path(source).exists()


def find_listed_scans(source: str, *, ignored: Path | None = None) -> tuple[Scan, ...]:
    """Find all scans of a folder or list, in a reproducible order.

    Args:
        source: a folder; a BIDS data set (its anatomical images, without derivatives); a glob pattern (`**` for any
            depth); a CSV file with a column "path" (or image, scan, file) and optionally "id" (or case, name, subject)
            and "series", with paths relative to the CSV file; or "-" for paths on standard input, one per line.
        ignored: folder to ignore: that of the results.

    Returns:
        The scans. Results are named by the IDs of a CSV file, or else by paths below the folder, below the fixed part
        of the pattern, or below the current folder.

    Raises:
        RequestError: if the folder or list does not exist, holds no scan, or is malformed.
    """
    if source == STANDARD_INPUT:
        return _of_paths([line.rstrip("\r\n") for line in sys.stdin], Path.cwd(), "standard input")
    if source.lower().endswith(".csv"):
        return _of_table(Path(source))
    if is_pattern(source):
        found = sorted(path for path in glob.glob(source, recursive=True) if not _is_inside(Path(path), ignored))
        return _of_paths(found, _fixed_part(source), f"the pattern {source}")
    folder = Path(source)
    if _is_bids(folder):
        return _of_bids(folder)
    return find_scans(folder, ignored=ignored)


def _of_paths(lines: Iterable[str], root: Path, what: str) -> tuple[Scan, ...]:
    paths = list(dict.fromkeys(Path(line) for line in lines if line.strip()))
    if not paths:
        raise RequestError(f"There is no scan in {what}; check the paths.")
    return tuple(with_unique_names([scan for path in paths for scan in _scans_at(path, _name(path, root))]))


def _scans_at(path: Path, name: str, series: str | None = None) -> Iterator[Scan]:
    """The scan of a file, or the series of a DICOM folder."""
    if not path.exists():
        yield Scan(path, name, problem=f"There is no file or folder {path}.")
    elif not path.is_dir() or series:
        yield Scan(path, name, series)
    else:
        yield from _series_of_folder(path, name)


def _series_of_folder(folder: Path, name: str) -> Iterator[Scan]:
    try:
        below = [scan for scan in find_scans(folder) if not scan.skipped]
    except RequestError as error:
        yield Scan(folder, name, problem=str(error))
        return
    for scan in below:
        yield replace(scan, name=name if len(below) == 1 else f"{name}/{scan.name}")


def _name(path: Path, root: Path) -> str:
    """The path below the root without suffix, or the whole path if it is elsewhere."""
    absolute = path.absolute()
    plain = absolute if path.is_dir() else absolute.with_name(name_without_suffix(absolute))
    base = root.absolute()
    inside = plain.relative_to(base) if base in plain.parents else plain.relative_to(plain.anchor)
    return PurePosixPath(*(part for part in inside.parts if part != "..")).as_posix()


def _fixed_part(pattern: str) -> Path:
    """The folder above the first wildcard component of a pattern."""
    parts = Path(pattern).parts
    first = next(number for number, part in enumerate(parts) if _MAGIC & set(part))
    return Path(*parts[:first])


def _is_inside(path: Path, folder: Path | None) -> bool:
    return folder is not None and folder.absolute() in path.absolute().parents


def _of_table(path: Path) -> tuple[Scan, ...]:
    """The scans of a CSV file, in order."""
    rows = _read_table(path)
    often = Counter(name.casefold() for _, name, _ in rows if name)
    for _, name, _ in rows:
        if often[name.casefold()] > 1:
            raise RequestError(f"The id '{name}' is in two rows of {path}; each result needs an id of its own.")
    scans: list[Scan] = []
    for file, name, series in rows:
        place = path.parent / file
        scans += _scans_at(place, name or _name(place, path.parent), series or None)
    return tuple(with_unique_names(scans))


def _read_table(path: Path) -> list[tuple[str, str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise RequestError(f"There is no file {path}; check the path.") from None
    except (OSError, UnicodeError) as error:
        raise VolumeError(f"{path} cannot be read as a table ({error}); save it as CSV with UTF-8.") from error
    separator = ";" if ";" in text.partition("\n")[0] else ","
    table = csv.DictReader(text.splitlines(), delimiter=separator)
    columns = {(name or "").strip().lower(): name for name in table.fieldnames or ()}
    path_column = _first(columns, _PATH_COLUMNS)
    if path_column is None:
        raise RequestError(f"{path} has no column 'path'; its first row names the columns, for example 'id,path'.")
    id_column, series_column = _first(columns, _ID_COLUMNS), columns.get(_SERIES_COLUMN)
    rows = [
        (_cell(row, path_column), _checked_id(_cell(row, id_column), path), _cell(row, series_column)) for row in table
    ]
    rows = [row for row in rows if row[0]]
    if not rows:
        raise RequestError(f"There is no scan in {path}; add a row for each.")
    return rows


def _first(columns: dict[str, str], wanted: Sequence[str]) -> str | None:
    return next((columns[name] for name in wanted if name in columns), None)


def _cell(row: dict[str, str], column: str | None) -> str:
    return ((row.get(column) or "") if column is not None else "").strip()


def _checked_id(name: str, path: Path) -> str:
    """Check that an ID can name files in the output folder."""
    parts = name.replace("\\", "/").split("/")
    if name and any(part in ("", ".", "..") or part.startswith(".") or ":" in part for part in parts):
        raise RequestError(f"The id '{name}' of {path} cannot be the name of a file; use letters, digits, '-' and '_'.")
    return name.replace("\\", "/")


def _is_bids(folder: Path) -> bool:
    """Whether a folder is a raw BIDS data set."""
    try:
        description = json.loads((folder / _BIDS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    is_described = isinstance(description, dict) and "BIDSVersion" in description
    return is_described and description.get("DatasetType", "raw") == "raw"


def _of_bids(folder: Path) -> tuple[Scan, ...]:
    """The anatomical images of all subjects and sessions, without derivatives and source data."""
    files = sorted(
        path
        for pattern in ("sub-*/*/*.nii*", "sub-*/ses-*/*/*.nii*")
        for path in folder.glob(pattern)
        if path.parent.name in _BIDS_TYPES and path.name.lower().endswith((".nii", ".nii.gz"))
    )
    if not files:
        raise RequestError(
            f"The BIDS data set {folder} has no image in a folder {', '.join(sorted(_BIDS_TYPES))} of a subject."
        )
    return tuple(with_unique_names([Scan(path, _name(path, folder)) for path in files]))
