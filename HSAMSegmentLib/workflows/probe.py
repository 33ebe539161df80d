"""Report what this computer offers: versions, free disk space, and devices that passed a tiny real computation."""

from __future__ import annotations

import platform
import shutil
import tempfile
from dataclasses import asdict
from importlib import metadata
from typing import Any

from HSAMSegmentLib import __version__
from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.requests import ProbeRequest

PACKAGES = ("torch", "numpy", "scipy", "SimpleITK", "safetensors", "psutil")


def run(request: ProbeRequest, context: Context) -> dict[str, Any]:
    """Collect "hsamsegment", "python", "system", "packages", "free_disk_gb" and, on request, "devices"."""
    values: dict[str, Any] = {
        "hsamsegment": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "free_disk_gb": round(shutil.disk_usage(tempfile.gettempdir()).free / 1e9, 1),
    }
    context.cancel.raise_if_cancelled()
    if request.devices:
        context.emit(Progress(0.3, "Trying the devices"))
        values["devices"] = _devices()
    return values


def _version(name: str) -> str:
    """Installed version of a distribution without importing it; empty if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _devices() -> list[dict[str, Any]]:
    from HSAMSegmentLib.runtime.devices import list_devices  # imports torch

    return [asdict(device) for device in list_devices()]
