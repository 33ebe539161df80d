"""A headless stand-in for 3D Slicer: the real MRML scene and logics of slicer-core, Qt widgets of PySide6.

`start_host()` once per process, then `slicer`, `qt`, `ctk` and `vtk` are imported as in Slicer. See README.md beside
this folder for what is real and what is not.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

HOST_FOLDER = Path(__file__).resolve().parents[1]
_host = None


def start_host(**options):
    """Start the host of this process, or return the one that runs.

    Args:
        options: see `slicerhost.application.Host`.
    """
    global _host
    if _host is None:
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
        _keep_none_alive()
        sys.path.insert(0, str(HOST_FOLDER / "shim"))
        from slicerhost.application import Host

        _host = Host(**options)
    return _host


def _keep_none_alive():
    """Give None more references than PySide6 can take away.

    Measured with PySide6 6.12.0 on Python 3.11: every call of a function without result takes one reference of None
    too many, until the interpreter aborts. From Python 3.12 on None is immortal, and nothing is to be done.
    """
    if sys.version_info < (3, 12):
        ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40
