"""Image files that appear under their name only when they are complete."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from HSAMSegmentLib.errors import OutputError

_TOO_FULL_BYTES = 1 << 20
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextmanager
def complete_file(path: Path, suffix: str, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to, and rename it when the block ends without an error.

    Args:
        path: where the file shall be.
        suffix: suffix of the temporary name, by which ITK knows the format.
        overwrite: whether an existing file may be replaced.

    Raises:
        OutputError: if it exists and may not be replaced, or cannot be written.
    """
    check_output(path, overwrite=overwrite)
    temporary = path.with_name(f".writing-{uuid.uuid4().hex[:12]}{suffix}")
    try:
        yield temporary
        _flush_to_disk(temporary)
        check_output(path, overwrite=overwrite)
        os.replace(temporary, path)
    except (RuntimeError, OSError) as error:
        raise OutputError(_reason(path, error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_output(path: Path, *, overwrite: bool) -> None:
    """Make sure that a file may be written.

    Raises:
        OutputError: if it exists and may not be replaced, is a folder, or its folder does not exist.
    """
    if path.is_dir():
        raise OutputError(f'"{path}" is a folder; give the name of a file.')
    if path.exists() and not overwrite:
        raise OutputError(f'"{path}" exists already; choose another name, or allow overwriting.')
    if not path.absolute().parent.is_dir():
        raise OutputError(f'The folder "{path.absolute().parent}" does not exist; create it or choose another one.')


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(path: Path, error: Exception) -> str:
    """One sentence; ITK does not tell the cause of a failed write, so it is looked for."""
    folder = path.absolute().parent
    number = getattr(error, "errno", None)
    if number in _FULL or shutil.disk_usage(folder).free < _TOO_FULL_BYTES:
        return f'The disk is full; "{path.name}" was not written to "{folder}".'
    if number in (errno.EACCES, errno.EPERM, errno.EROFS) or not os.access(folder, os.W_OK):
        return f'There is no permission to write "{path.name}" to "{folder}"; choose another folder.'
    return f'"{path.name}" could not be written completely to "{folder}"; check the free space and try again.'
