"""Runs Qt's event loop the way Slicer does: with the GIL held while it is idle.

PySide6's own `exec` releases the GIL, so background threads run well in it and starve in Slicer. A call through
`ctypes.PyDLL` keeps the GIL.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import PySide6
import qt


def run_holding_gil(until, interval_ms=20, limit_ms=60_000):
    """Run the event loop until `until()` is true; returns whether it became true within the limit."""
    clock = qt.QElapsedTimer()
    clock.start()
    timer = qt.QTimer()
    timer.setInterval(interval_ms)
    outcome = []

    def look():
        reached = bool(until())
        if reached or clock.elapsed() > limit_ms:
            timer.stop()
            outcome.append(reached)
            qt.QCoreApplication.quit()

    timer.timeout.connect(look)
    timer.start()
    _native_exec()()
    return outcome[0]


def _native_exec():
    """`QCoreApplication::exec`, called without releasing the GIL."""
    folder = Path(PySide6.__file__).parent / "Qt" / "lib"
    library = ctypes.PyDLL(str(folder / "libQt6Core.so.6"))
    function = library._ZN16QCoreApplication4execEv
    function.restype = ctypes.c_int
    return function
