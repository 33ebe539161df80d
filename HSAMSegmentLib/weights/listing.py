"""What the files of weights are: looked into once per change, since their heads are asked for at every question."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from HSAMSegmentLib.weights.catalog import CatalogEntry
from HSAMSegmentLib.weights.importing import read_sidecar, sidecar_path
from HSAMSegmentLib.weights.store_entries import BROKEN, ModelEntry, entry_from_catalog, entry_from_file

SETTLED_SECONDS = 2.0
"""A younger file may change again within one tick of its file system's clock (FAT: 2 s), which no stamp would show."""

_Stamp = tuple[int, ...]


@dataclass(frozen=True)
class _Kept:
    """An entry, and what it was made from."""

    stamps: tuple[_Stamp | None, _Stamp | None]
    known: CatalogEntry | None
    entry: ModelEntry


class FileListing:
    """Entries by file, valid as long as the file, its sidecar and what the catalog says of it stay the same.

    May be used by several threads, while other programs add, replace and remove files.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Path, str], _Kept] = {}
        self._lock = threading.Lock()

    def entry(self, path: Path, status: str, known: CatalogEntry | None = None) -> ModelEntry | None:
        """What a file is; None if it is gone.

        Args:
            path: the file.
            status: `BUILT_IN` or `STORED`, for a file that is not broken.
            known: the entry of the catalog whose file name it has, if any.
        """
        stamps = _stamps(path)
        if stamps[0] is None:
            self._forget(path, status)
            return None
        with self._lock:
            kept = self._kept.get((path, status))
        if kept is not None and kept.stamps == stamps and kept.known == known:
            return kept.entry
        try:
            entry = _read(path, status, known)
        except FileNotFoundError:
            self._forget(path, status)
            return None
        # A file that changed while it was read, or is broken (which may be the disk's fault), is read again.
        if entry.status != BROKEN and _are_settled(stamps) and _stamps(path) == stamps:
            with self._lock:
                self._kept[path, status] = _Kept(stamps, known, entry)
        return entry

    def _forget(self, path: Path, status: str) -> None:
        with self._lock:
            self._kept.pop((path, status), None)


FILES = FileListing()
"""Shared by all stores of this process."""


def _read(path: Path, status: str, known: CatalogEntry | None) -> ModelEntry:
    if known is not None:
        return entry_from_catalog(known, path)
    return entry_from_file(path, status, read_sidecar(path))


def _stamps(path: Path) -> tuple[_Stamp | None, _Stamp | None]:
    return _stamp(path), _stamp(sidecar_path(path))


def _stamp(path: Path) -> _Stamp | None:
    """Changes whenever a file is written or replaced; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev)


def _are_settled(stamps: tuple[_Stamp | None, _Stamp | None], clock: Callable[[], int] = time.time_ns) -> bool:
    return all(stamp is None or abs(clock() - stamp[0]) > SETTLED_SECONDS * 1e9 for stamp in stamps)
