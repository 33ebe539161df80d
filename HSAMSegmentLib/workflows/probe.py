"""The job that says what this computer offers: versions, free disk, and devices that passed a real small run."""

from __future__ import annotations

import platform
import shutil
import tempfile
from dataclasses import asdict
from importlib import metadata
from typing import Any

from HSAMSegmentLib import __version__
from HSAMSegmentLib.runtime.progress import CancelToken, Progress
from HSAMSegmentLib.workflows.events import Result
from HSAMSegmentLib.workflows.requests import ProbeRequest
from HSAMSegmentLib.workflows.run import Emit, JobContext

PACKAGES = ("torch", "numpy", "scipy", "SimpleITK", "safetensors", "segment-anything", "psutil")


def probe(request: ProbeRequest, emit: Emit, cancel: CancelToken, context: JobContext) -> Result:
    """Collect "hsamsegment", "python", "system", "packages", "free_disk_gb" and, if asked for, "devices"."""
    values: dict[str, Any] = {
        "hsamsegment": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "free_disk_gb": round(shutil.disk_usage(tempfile.gettempdir()).free / 1e9, 1),
    }
    cancel.raise_if_cancelled()
    if request.devices:
        emit(Progress(0.3, "Trying the devices"))
        values["devices"] = _devices()
    return Result(values)


def _version(name: str) -> str:
    """Installed version of a distribution, empty if it is not installed; imports nothing."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _devices() -> list[dict[str, Any]]:
    from HSAMSegmentLib.runtime.devices import list_devices  # imports torch

    return [asdict(device) for device in list_devices()]
