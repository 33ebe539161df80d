"""JSON lines in a file that one process appends to and another one reads: a pipe that never blocks.

Pipes would need a reader thread (which starves in Slicer, whose idle loop keeps the GIL) or non-blocking reads (which
Windows lacks before Python 3.12), and a launcher between two processes may not pass them on.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any


class LineWriter:
    """Appends lines to a file; every line is complete on disk when `write` returns. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("a", encoding="utf-8")
        self._lock = Lock()

    def write(self, data: dict[str, Any]) -> None:
        """Append one JSON line."""
        with self._lock:
            self._stream.write(json.dumps(data) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class LineReader:
    """Reads the lines appended since the last call; an unfinished line is left for the next call."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self._path = path
        self._stream = path.open("rb")
        self._rest = b""

    def read(self) -> list[dict[str, Any]]:
        """New complete lines as JSON values, oldest first."""
        data = self._stream.read()
        if not data:
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines if line]

    def clear(self) -> None:
        """Empty the file after all lines were read; only while the writer is silent."""
        with suppress(OSError):  # otherwise it is emptied with the next job, or deleted with its folder
            os.truncate(self._path, 0)
            self._stream.seek(0)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def last_lines(path: Path, count: int = 40, limit_bytes: int = 64_000) -> str:
    """The end of a log file; empty without one."""
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - limit_bytes))
        text = stream.read().decode("utf-8", errors="replace")
    return "\n".join(text.splitlines()[-count:])
