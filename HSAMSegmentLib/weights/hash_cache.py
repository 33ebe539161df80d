"""Hashes that were computed once, so that a large file is not read again at every start. No torch here."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from HSAMSegmentLib.errors import OutputError
from HSAMSegmentLib.runtime.atomic_files import atomic_output
from HSAMSegmentLib.runtime.disk import sha256_of

_log = logging.getLogger(__name__)


class VerifiedHashes:
    """SHA-256 by file name, valid as long as the file's size and modification time stay the same.

    Args:
        folder: the folder of the files; the notes are kept in it as `verified.json`.
    """

    FILE = "verified.json"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / self.FILE

    def sha256(self, path: Path, between_chunks: Callable[[], None] = lambda: None) -> str:
        """Hash of a file in the folder, computed only if it changed since the last time."""
        stamp = _stamp(path)
        noted = self._read().get(path.name)
        if isinstance(noted, dict) and {key: noted.get(key) for key in stamp} == stamp:
            return str(noted["sha256"])
        sha256 = sha256_of(path, between_chunks)
        self.remember(path, sha256)
        return sha256

    def remember(self, path: Path, sha256: str) -> None:
        """Note a hash that was computed while the file was written."""
        self._write({**self._read(), path.name: {**_stamp(path), "sha256": sha256}})

    def forget(self, name: str) -> None:
        """Drop the note of a file that is gone; the last one takes the notes' file with it."""
        notes = self._read()
        if name in notes:
            del notes[name]
            self._write(notes)
        if not notes:
            self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            notes = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            _log.warning("%s is unreadable (%s); hashes are computed again.", self._path, error)
            return {}
        return notes if isinstance(notes, dict) else {}

    def _write(self, notes: dict[str, Any]) -> None:
        try:
            with atomic_output(self._path, overwrite=True) as stream:
                stream.write(json.dumps(notes, indent=1).encode())
        except OutputError as error:
            _log.warning("The hash is not kept for the next time: %s", error)


def _stamp(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
