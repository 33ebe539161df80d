"""Claims on the scans of an output folder: several runs share the work, and no scan kills a third process.

A run holds a lock on a small file while it works on a scan; the operating system releases the locks of a process
however it ends. Next to it is a list of attempts that did not end cleanly: a scan that has killed two processes is
skipped once, so that a job that is restarted again and again gets past it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from HSAMSegmentLib.runtime.atomic_files import explain_write_error, make_folder

logger = logging.getLogger(__name__)

FOLDER = ".hsam-segment"
MANIFEST_LOCK = "manifest.lock"
MOST_TRIES = 2


class Claims:
    """Locks and attempts of an output folder."""

    def __init__(self, output: Path) -> None:
        """Create the hidden folder.

        Raises:
            OutputError: if that fails.
        """
        self.folder = make_folder(output / FOLDER)
        self._has_locks = True

    def claim(self, name: str) -> Claim | None:
        """Claim the scan with this name; None if another run has it.

        On a disk without locks the scan is claimed without one, and a warning is logged.
        """
        path = self.folder / f"{_key(name)}.lock"
        lock = self.lock(path.name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        except (OSError, NotImplementedError) as error:
            self._warn(error)
            return Claim(None, path)
        return Claim(lock, path)

    def lock(self, name: str) -> BaseFileLock:
        """A lock on a file in the hidden folder, not acquired yet."""
        return FileLock(str(self.folder / name), thread_local=False)

    @contextmanager
    def one_try(self, name: str) -> Iterator[str]:
        """Record an attempt on a scan; the record is deleted when the block ends, even with an error.

        Yields:
            Empty, or why the scan must not be attempted: it has killed two processes.

        Raises:
            OutputError: if the record cannot be written.
        """
        path = self._tries(name)
        before = _read_lines(path)
        if len(before) >= MOST_TRIES:
            path.unlink(missing_ok=True)
            yield poisoned_sentence(before)
            return
        line = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
        try:
            with open(path, "a", encoding="utf-8") as stream:
                stream.write(line + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise explain_write_error(error, path) from error
        try:
            yield ""
        finally:
            path.unlink(missing_ok=True)

    def tries(self, name: str) -> list[str]:
        """Attempts on a scan that did not end cleanly."""
        return _read_lines(self._tries(name))

    def forget(self, name: str) -> None:
        """Delete the attempts on a scan."""
        self._tries(name).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Delete the hidden folder unless it holds anything of another run."""
        with suppress(OSError):
            if {path.name for path in self.folder.iterdir()} <= {MANIFEST_LOCK}:
                (self.folder / MANIFEST_LOCK).unlink(missing_ok=True)
                self.folder.rmdir()

    def _tries(self, name: str) -> Path:
        return self.folder / f"{_key(name)}.tries"

    def _warn(self, error: Exception) -> None:
        if self._has_locks:
            self._has_locks = False
            logger.warning("This disk has no file locks (%s): do not start two runs on it at once.", error)


class Claim:
    """A scan that this run may work on until it is released."""

    def __init__(self, lock: BaseFileLock | None, path: Path) -> None:
        self._lock, self._path = lock, path

    def release(self) -> None:
        """Release the claim.

        The file is deleted first. Another run may hold the deleted file for a moment while a third one creates a new
        one; both check whether the scan is done before processing it.
        """
        with suppress(OSError):  # Windows does not delete open files
            self._path.unlink()
        if self._lock is not None:
            self._lock.release()


def poisoned_sentence(tries: list[str]) -> str:
    """Why a scan that has killed processes is not attempted again in this run."""
    places = []
    for line in tries:
        with suppress(ValueError, KeyError, TypeError):
            values = json.loads(line)
            places.append(f"process {values['pid']} on {values['host']}")
    where = f" ({', '.join(places)})" if places else ""
    return (
        f"{len(tries) or MOST_TRIES} processes ended in the middle of this scan{where}, most often because memory ran "
        "out; it was passed over. Look at the scan and at the memory of the computer, then start the command again."
    )


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _key(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:24]
