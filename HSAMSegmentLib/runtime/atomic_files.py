"""Atomic file writes, and one-sentence explanations of write errors."""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from HSAMSegmentLib.errors import OutputError, RequestError

TEMPORARY_SUFFIX = ".writing"
LEFTOVER_SECONDS = 24 * 3600

_TOO_FULL_BYTES = 1 << 20
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def explain_write_error(error: OSError, path: Path) -> OutputError:
    """Explain a write error in a sentence for the user.

    An error without an errno is ITK's, which does not give the cause of a failed write, so it is determined here.
    """
    folder, number = path.parent, error.errno
    unknown = number is None and folder.is_dir()
    if number in _FULL or (unknown and shutil.disk_usage(folder).free < _TOO_FULL_BYTES):
        return OutputError(
            f"The disk is full: {path.name} could not be written to {folder}. Free some space or choose another folder."
        )
    if number in _FORBIDDEN or (unknown and not os.access(folder, os.W_OK)):
        return OutputError(f"There is no permission to write {path.name} in {folder}. Choose another folder.")
    return OutputError(f"{path.name} could not be written to {folder} ({error.strerror or error}).")


def make_folder(folder: Path) -> Path:
    """Create a folder and its parents.

    Raises:
        OutputError: if that fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{folder} is a file, where a folder is needed. Choose another folder.") from error
    except OSError as error:
        raise explain_write_error(error, folder) from error
    return folder


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse to overwrite existing data.

    Raises:
        OutputError: if `path` exists and may not be overwritten, or is a folder.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file.")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already. Choose another name or allow overwriting.")


def check_output(path: Path, *, overwrite: bool) -> None:
    """Ensure that a file may be written.

    Raises:
        OutputError: if it exists and may not be replaced, is a folder, or its folder does not exist.
    """
    refuse_existing(path, overwrite)
    folder = path.absolute().parent
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, where a folder is needed. Choose another folder.")
    if not folder.is_dir():
        raise OutputError(f"The folder {folder} does not exist. Create it or choose another one.")


def check_outputs(paths: Iterable[Path | None], *, overwrite: bool, source: Path | None = None) -> None:
    """Check all outputs of a job before its work begins.

    Args:
        paths: the outputs; None for those that are not requested.
        overwrite: replace existing files.
        source: input of the job, which is never an output.

    Raises:
        RequestError: if two outputs are the same file, or one is the source itself.
        OutputError: if one exists and may not be replaced, is a folder, or its folder is not writable.
    """
    seen = {} if source is None else {source.resolve(): "the scan"}
    for path in (path for path in paths if path is not None):
        if path.resolve() in seen:
            raise RequestError(f"{path} is asked for as an output and is {seen[path.resolve()]} at the same time.")
        seen[path.resolve()] = "another output"
        check_output(path, overwrite=overwrite)
        folder = path.absolute().parent
        if not os.access(folder, os.W_OK):
            raise OutputError(f"There is no permission to write to {folder}. Choose another folder.")


@contextmanager
def complete_file(path: Path, *, overwrite: bool, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path next to `path` to write to, and rename it if the block ends without an error.

    After any error the temporary file is deleted, and an existing file under the final name is unchanged.

    Args:
        path: final path of the file.
        overwrite: replace an existing file.
        suffix: suffix of the temporary name, for writers that derive the format from it.

    Raises:
        OutputError: if it exists and may not be replaced, or cannot be written.
    """
    check_output(path, overwrite=overwrite)
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}{TEMPORARY_SUFFIX}{suffix}")
    try:
        yield temporary
        _flush_to_disk(temporary)
        check_output(path, overwrite=overwrite)
        os.replace(temporary, path)
    except OSError as error:
        raise explain_write_error(error, path) from error
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):  # the file or its folder is gone
            temporary.unlink()


@contextmanager
def atomic_output(path: Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when it is complete and flushed to disk.

    Raises:
        OutputError: if the file exists and may not be overwritten, or cannot be written.
    """
    with complete_file(Path(path), overwrite=overwrite) as temporary, open(temporary, "xb") as stream:
        yield stream


def sweep_leftovers(folder: Path, pattern: str = f".*{TEMPORARY_SUFFIX}*") -> None:
    """Delete temporary files that killed programs left in a folder; recent ones may belong to a running program."""
    for leftover in folder.glob(pattern):
        if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
            leftover.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
