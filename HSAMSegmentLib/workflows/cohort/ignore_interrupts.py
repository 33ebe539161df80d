"""Preload for local workers: Ctrl-C reaches all processes of a terminal, but the command itself stops its workers."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Called by Dask in the main thread of a starting worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
