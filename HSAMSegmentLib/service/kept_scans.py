"""Scans that a MONAI Label client uploads once and can have segmented repeatedly."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from HSAMSegmentLib.service.jobs import UnknownJobError


class UnknownScanError(UnknownJobError):
    """The owner has no such scan. Reveals nothing about scans of others."""


@dataclass
class _KeptScan:
    folder: Path
    scan: Path
    used: float


class KeptScans:
    """Scans by owner and name; thread-safe.

    Args:
        most_of_one: maximum number of scans per owner; the least recently used one makes room for a new one.
        keep_seconds: how long a scan is kept after its last use.
        clock: returns monotonic seconds.
    """

    def __init__(self, *, most_of_one: int, keep_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_of_one = most_of_one
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._scans: dict[tuple[str, str], _KeptScan] = {}
        self._guard = threading.Lock()

    def add(self, owner: str, name: str, folder: Path, scan: Path) -> None:
        """Keep a scan; an older one with the same name is deleted.

        Args:
            owner: the sender.
            name: the owner's name for it.
            folder: contains its files and nothing else; deleted with it.
            scan: the file or folder of the scan in `folder`.
        """
        with self._guard:
            self._drop((owner, name))
            own = sorted((kept.used, key) for key, kept in self._scans.items() if key[0] == owner)
            for _, key in own[: max(len(own) + 1 - self._most_of_one, 0)]:
                self._drop(key)
            self._scans[owner, name] = _KeptScan(folder, scan, self._clock())

    def require(self, owner: str, name: str) -> None:
        """Mark a scan as still needed.

        Raises:
            UnknownScanError: if the owner has no scan with this name.
        """
        with self._guard:
            self._find(owner, name)

    def copy(self, owner: str, name: str, folder: Path) -> Path:
        """Copy a scan into the folder of a job, by hard links if the disk supports them.

        Returns:
            The file or folder of the scan in `folder`.

        Raises:
            UnknownScanError: if the owner has no scan with this name.
            OSError: if the disk is full.
        """
        with self._guard:
            scan = self._find(owner, name).scan
            target = folder / scan.name
            if scan.is_dir():
                shutil.copytree(scan, target, copy_function=_link)
            else:
                _link(scan, target)
            return target

    def remove(self, owner: str, name: str) -> None:
        """Delete a scan.

        Raises:
            UnknownScanError: if the owner has no scan with this name.
        """
        with self._guard:
            self._find(owner, name)
            self._drop((owner, name))

    def expire(self) -> None:
        """Delete scans that were not used for long."""
        with self._guard:
            limit = self._clock() - self._keep_seconds
            for key in [key for key, kept in self._scans.items() if kept.used < limit]:
                self._drop(key)

    def _find(self, owner: str, name: str) -> _KeptScan:
        kept = self._scans.get((owner, name))
        if kept is None:
            raise UnknownScanError("There is no such scan: it was deleted, or kept too long, or never sent.")
        kept.used = self._clock()
        return kept

    def _drop(self, key: tuple[str, str]) -> None:
        kept = self._scans.pop(key, None)
        if kept is not None:
            shutil.rmtree(kept.folder, ignore_errors=True)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a disk without hard links
        shutil.copyfile(source, target)
