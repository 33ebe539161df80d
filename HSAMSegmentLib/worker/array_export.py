"""Pass a large array to another process through a file, without noticeably stalling this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np


class Export(Protocol):
    """Something that is exported piece by piece."""

    def step(self) -> bool:
        """Export one more piece; return whether all is done. Raises OSError if it cannot be written."""


class ArrayExport:
    """Writes an array to a `.npy` file piece by piece, one per timer tick.

    Plain writes instead of a memory map: on a full disk they raise an error, where a map would crash the whole program.
    """

    def __init__(self, array: np.ndarray, path: Path, *, piece_bytes: int = 16 * 2**20) -> None:
        self._array = array
        self._rows = max(1, int(piece_bytes // max(1, array[:1].nbytes)))
        self._next = 0
        self._stream: BinaryIO | None = path.open("wb")
        header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(self._stream, header)

    def step(self) -> bool:
        """Write one more piece; return whether the file is complete.

        Raises:
            OSError: if it cannot be written.
        """
        if self._stream is None:
            return True
        stop = min(self._next + self._rows, len(self._array))
        self._stream.write(np.ascontiguousarray(self._array[self._next : stop]).data)
        self._next = stop
        if stop < len(self._array):
            return False
        self._stream.close()  # enough for another process on this computer; a sync to disk would stall
        self._stream = None
        return True


class ExportChain:
    """Several exports in sequence, each started after the previous ones are done."""

    def __init__(self, begin: Iterable[Callable[[], Export]]) -> None:
        """`begin` yields the exports, each when it is its turn."""
        self._waiting = list(begin)
        self._current: Export | None = None

    def step(self) -> bool:
        """Export one more piece; return whether all is done."""
        if self._current is None:
            if not self._waiting:
                return True
            self._current = self._waiting.pop(0)()
        if self._current.step():
            self._current = None
        return self._current is None and not self._waiting
