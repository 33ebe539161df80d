"""Files on disk: written atomically, hashed, and their errors told in one sentence. No torch here."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from HSAMSegmentLib.errors import OutputError

CHUNK_BYTES = 1 << 20
DISK_RESERVE_BYTES = 64 << 20
TEMPORARY_SUFFIX = ".writing"
LEFTOVER_SECONDS = 24 * 3600

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def format_bytes(count: float) -> str:
    """A file size as a person reads it, in decimal units: "375.0 MB"."""
    if count < 1000:
        return f"{int(count)} bytes"
    for unit in ("kB", "MB", "GB"):
        count /= 1000.0
        if count < 1000.0 or unit == "GB":
            return f"{count:.1f} {unit}"
    raise AssertionError("unreachable")


def explain_write_error(error: OSError, path: Path) -> OutputError:
    """The sentence for a user whose file could not be written."""
    if error.errno in _FULL:
        return OutputError(
            f"The disk is full: {path.name} could not be written to {path.parent}. "
            "Free some space or choose another folder."
        )
    if error.errno in _FORBIDDEN:
        return OutputError(f"There is no permission to write {path.name} in {path.parent}. Choose another folder.")
    return OutputError(f"{path.name} could not be written to {path.parent} ({error.strerror or error}).")


def make_folder(folder: Path) -> Path:
    """Create a folder and its parents.

    Raises:
        OutputError: if that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(f"{folder} is a file, where a folder is needed. Choose another folder.") from error
    except OSError as error:
        raise explain_write_error(error, folder) from error
    return folder


def require_free_space(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Make sure that a file fits before its first byte is written.

    Args:
        folder: an existing folder on the disk in question.
        needed_bytes: size of what will be written; a small reserve is added.
        purpose: subject of the sentence ("Downloading SAM ViT-B").

    Raises:
        OutputError: if the disk has less space than that.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + DISK_RESERVE_BYTES:
        raise OutputError(
            f"{purpose} needs {format_bytes(needed_bytes)}, but the disk of {folder} has only "
            f"{format_bytes(free)} free. Free some space or choose another folder."
        )


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Stop before something that exists is lost.

    Raises:
        OutputError: if `path` exists and may not be overwritten, or is a folder.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file.")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already. Choose another name or allow overwriting.")


@contextmanager
def atomic_output(path: Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when it is complete and on the disk.

    The bytes go to a temporary name in the same folder; whatever goes wrong, that file is removed and an older file
    under the final name stays as it was.

    Raises:
        OutputError: if the file exists and may not be overwritten, or cannot be written.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}")
    try:
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        refuse_existing(path, overwrite)
        os.replace(temporary, path)
    except OSError as error:
        raise explain_write_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def sweep_leftovers(folder: Path) -> None:
    """Remove temporary files that killed programs left in a folder; young ones may belong to a running program."""
    for leftover in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
            leftover.unlink(missing_ok=True)


def _never() -> None:
    """Do nothing between two chunks: the default of functions that can be interrupted there."""


def copy_stream(source: BinaryIO, target: BinaryIO | None, between_chunks: Callable[[], None] = _never) -> str:
    """Copy a stream from its position to its end (or only read it) and return the SHA-256 of what passed."""
    digest = hashlib.sha256()
    for chunk in iter(lambda: source.read(CHUNK_BYTES), b""):
        between_chunks()
        digest.update(chunk)
        if target is not None:
            target.write(chunk)
    return digest.hexdigest()


def sha256_of(path: Path, between_chunks: Callable[[], None] = _never) -> str:
    """SHA-256 of a file as lowercase hex; `between_chunks` may raise to stop early (cancel)."""
    with open(path, "rb") as stream:
        return copy_stream(stream, None, between_chunks)
