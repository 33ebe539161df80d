"""Disk utilities: sizes in words, free space, copies and hashes. No torch here.

`DiskSpaceMonitor` watches the disk of a training, since one that cannot save any more would lose further progress.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from HSAMSegmentLib.errors import OutputError
from HSAMSegmentLib.runtime.atomic_files import TEMPORARY_SUFFIX
from HSAMSegmentLib.runtime.progress import CancelToken, Progress, ProgressCallback, ProgressTracker

CHUNK_BYTES = 1 << 20
DISK_RESERVE_BYTES = 64 << 20
_MOST_REPORTS = 1000

STATE_COPIES = 5
"""Copies of the trained weights at 4 bytes: network, average, best weights, and both optimizer moments."""
SECOND_STATE_COPIES = 2
"""Additional copies for a second network on another plane: no best weights, nor the first network's moments."""
_CHECKS = 2


def format_bytes(count: float) -> str:
    """Format a file size in decimal units: "375.0 MB"."""
    if count < 1000:
        return f"{int(count)} bytes"
    for unit in ("kB", "MB", "GB"):
        count /= 1000.0
        if count < 1000.0 or unit == "GB":
            return f"{count:.1f} {unit}"
    raise AssertionError("unreachable")


def require_free_space(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Ensure that a file fits before its first byte is written.

    Args:
        folder: an existing folder on the disk.
        needed_bytes: size of the file; a small reserve is added.
        purpose: subject of the message ("Downloading SAM ViT-B").

    Raises:
        OutputError: if there is less free space.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + DISK_RESERVE_BYTES:
        raise OutputError(
            f"{purpose} needs {format_bytes(needed_bytes)}, but the disk of {folder} has only "
            f"{format_bytes(free)} free. Free some space or choose another folder."
        )


def chunk_watcher(
    progress: ProgressCallback, cancel: CancelToken, *, stage: str, total_bytes: int
) -> Callable[[], None]:
    """Return a callback for use between chunks of a copy: it checks for a cancel, and reports now and then.

    Args:
        progress: called at most a thousand times, whatever the file size, since each report is shown on a main thread.
        cancel: makes the call raise CancelledError.
        stage: displayed description of the work.
        total_bytes: size of all copies and hashes together.
    """
    tracker = ProgressTracker(progress, stage=stage, steps=total_bytes)
    reported_bytes = max(CHUNK_BYTES, total_bytes // _MOST_REPORTS)
    waiting = 0
    progress(Progress(0.0, stage))

    def between_chunks() -> None:
        nonlocal waiting
        cancel.raise_if_cancelled()
        waiting += CHUNK_BYTES
        if waiting >= reported_bytes:
            tracker.advance(waiting)
            waiting = 0

    return between_chunks


def _never() -> None:
    """Do nothing between chunks: the default callback."""


def copy_stream(
    source: BinaryIO,
    target: BinaryIO | None,
    between_chunks: Callable[[], None] = _never,
    *,
    written_before: bytes = b"",
) -> str:
    """Copy a stream from its position to its end (or only read it).

    Args:
        source: stream to read.
        target: stream to write; None to read only.
        between_chunks: called every megabyte; may raise to stop early (cancel).
        written_before: content already in the target, included in the hash.

    Returns:
        The SHA-256 as lowercase hex.
    """
    digest = hashlib.sha256(written_before)
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


class DiskSpaceMonitor:
    """Checks the free space from time to time."""

    def __init__(self, folder: Path, learning_weights: int, *, has_second: bool = False) -> None:
        """
        Args:
            folder: folder of the training run.
            learning_weights: number of trained weights in the network.
            has_second: whether a second network will be trained on another plane.
        """
        self._folder = folder
        copies = STATE_COPIES + (SECOND_STATE_COPIES if has_second else 0)
        self.needed_bytes = copies * 4 * learning_weights
        self._short_checks = 0

    def check(self) -> bool:
        """Whether space was short both now and at the last check, so that a transient file is not the cause."""
        writing = sum(_size(path) for path in self._folder.glob(f".*{TEMPORARY_SUFFIX}*"))
        is_short = writing + shutil.disk_usage(self._folder).free < self.needed_bytes
        self._short_checks = self._short_checks + 1 if is_short else 0
        return self._short_checks >= _CHECKS


def _size(path: Path) -> int:
    """Size of a file in bytes; 0 if it was just renamed and takes no extra space."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
