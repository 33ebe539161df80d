"""A private temporary folder for the arrays of jobs, removed at exit and, after a crash, by the next start."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import psutil

PREFIX = "hsamsegment-"


class Workspace:
    """Hands out one folder per job below a folder that only this user can read."""

    def __init__(self, parent: str | Path | None = None) -> None:
        """Create the folder in `parent`, by default the system's folder for temporary files."""
        base = Path(parent) if parent else Path(tempfile.gettempdir())
        remove_abandoned(base)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=base))
        self._jobs = 0
        atexit.register(self.close)

    def job_folder(self) -> Path:
        """Create an empty folder for one job."""
        self._jobs += 1
        folder = self.folder / f"job-{self._jobs}"
        folder.mkdir()
        return folder

    def close(self) -> None:
        """Remove everything; may be called more than once."""
        atexit.unregister(self.close)
        shutil.rmtree(self.folder, ignore_errors=True)


def remove_abandoned(base: Path) -> None:
    """Remove the folders of processes that ended without cleaning up (killed, power cut)."""
    for folder in base.glob(f"{PREFIX}*-*"):
        owner = folder.name[len(PREFIX) :].split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


class ArrayExport:
    """Writes an array to a `.npy` file piece by piece, so that a GUI's timer can do it without a noticeable stall."""

    def __init__(self, array: np.ndarray, path: Path, *, piece_bytes: int = 48 * 2**20) -> None:
        self._array = array
        self._target: np.ndarray | None = np.lib.format.open_memmap(
            path, mode="w+", dtype=array.dtype, shape=array.shape
        )
        self._rows = max(1, int(piece_bytes // max(1, array[:1].nbytes)))
        self._next = 0

    def step(self) -> bool:
        """Write one more piece; returns whether the file is complete."""
        if self._target is None:
            return True
        stop = min(self._next + self._rows, len(self._array))
        self._target[self._next : stop] = self._array[self._next : stop]
        self._next = stop
        if stop < len(self._array):
            return False
        self._target = None  # closing is enough for another process on this computer; a sync to disk would stall
        return True
