"""Partial downloads, kept across failures, cancels and kills so that they can be resumed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from HSAMSegmentLib.errors import DownloadError
from HSAMSegmentLib.runtime.atomic_files import atomic_output, explain_write_error
from HSAMSegmentLib.runtime.disk import CHUNK_BYTES

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DownloadOrigin:
    """The source of a partial file.

    Attributes:
        url: requested address.
        validator: the server's strong ETag or modification date of the file; empty without one.
        sha256: expected hash of the complete file; empty if unknown.
    """

    url: str
    validator: str = ""
    sha256: str = ""


class PartialFile:
    """`NAME.part` next to the target, and `NAME.part.json` with its origin.

    The file is closed after every chunk, so that nothing received is lost if the process is killed.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + ".part")
        self.note = target.with_name(target.name + ".part.json")
        self.size = 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Hash of the current content."""
        return self._digest.hexdigest()

    def load(self, sha256: str, between_chunks: Callable[[], None]) -> None:
        """Resume what an earlier run left if it belongs to the requested file; otherwise delete it.

        A file with a known hash can be resumed from any mirror; without a hash, only if the server confirms that the
        file is unchanged.
        """
        origin = self.origin
        if origin is None or origin.sha256 != sha256 or not (sha256 or origin.validator):
            self.remove()
            return
        self._digest, self.size = hashlib.sha256(), 0
        with open(self.path, "rb") as stream:
            for chunk in iter(lambda: stream.read(CHUNK_BYTES), b""):
                between_chunks()
                self._digest.update(chunk)
                self.size += len(chunk)

    @property
    def origin(self) -> DownloadOrigin | None:
        """Origin of the part, or None if there is none or its note is unreadable."""
        if not self.path.is_file() or not self.note.is_file():
            return None
        try:
            return DownloadOrigin(**{key: str(value) for key, value in self._read_note().items()})
        except (ValueError, TypeError, AttributeError) as error:
            _log.warning("The note %s is unreadable (%s); the download starts again.", self.note.name, error)
            return None

    def _read_note(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.note.read_text(encoding="utf-8"))
        return found

    def restart(self) -> None:
        """Discard what was received."""
        self.path.unlink(missing_ok=True)
        self._digest, self.size = hashlib.sha256(), 0

    def remember(self, origin: DownloadOrigin) -> None:
        """Write the note for a part that is about to grow.

        Raises:
            OutputError: if it cannot be written.
        """
        with atomic_output(self.note, overwrite=True) as stream:
            stream.write(json.dumps(asdict(origin)).encode())

    def append(self, chunk: bytes) -> None:
        """Append received bytes.

        Raises:
            OutputError: if it cannot be written.
            DownloadError: if another program writes to the file, too.
        """
        try:
            with open(self.path, "ab") as stream:
                self._require_sole_writer(os.fstat(stream.fileno()).st_size)
                stream.write(chunk)
        except OSError as error:
            raise explain_write_error(error, self.path) from error
        self._digest.update(chunk)
        self.size += len(chunk)

    def _require_sole_writer(self, size_on_disk: int) -> None:
        if size_on_disk != self.size:
            raise DownloadError(
                f"Another program writes to {self.path.name} at the same time. Wait for it to end and try again."
            )

    def rename_to(self, target: Path) -> None:
        """Flush the bytes to disk, rename the file to its final name and delete the note.

        Raises:
            OutputError: if that fails.
            DownloadError: if another program wrote to the part.
        """
        try:
            with open(self.path, "rb+") as stream:
                self._require_sole_writer(os.fstat(stream.fileno()).st_size)
                os.fsync(stream.fileno())
            os.replace(self.path, target)
        except OSError as error:
            raise explain_write_error(error, target) from error
        self.note.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the part and its note."""
        self.restart()
        self.note.unlink(missing_ok=True)
