"""Loaded by workers of this computer: Ctrl-C reaches all processes of a terminal, and the command stops its workers."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Called by Dask in the main thread of a worker that starts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
