"""Hands a large array to another process through a file, without a noticeable stall of this one."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class ArrayExport:
    """Writes an array to a `.npy` file piece by piece, one with every tick of a timer."""

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
