"""Where the page on troubleshooting speaks of a failure, by the class of its error."""

from __future__ import annotations

from pathlib import Path

from slicer.i18n import tr as _

import HSAMSegmentLib
from HSAMSegmentLib.slicer.panels.widgets.theme import link_color

PAGE = "https://github.com/HSAMSegment/HSAMSegment/blob/main/Docs/troubleshooting.md"

LOCAL_PAGE = Path(HSAMSegmentLib.__file__).resolve().parents[1] / "Docs" / "troubleshooting.md"
"""The same page as a file, which comes with the extension."""

REQUEST, SCANS, WEIGHTS, MISSING, DOWNLOADS = "request", "scans-and-labels", "weights", "missing-model", "downloads"
DEVICES, MEMORY, OUTPUT, FINETUNING = "devices", "memory", "output", "fine-tuning"
PACKAGES, WORKER, UNEXPECTED = "packages", "worker", "unexpected"

ANCHORS = {
    "RequestError": REQUEST,
    "VolumeError": SCANS,
    "CheckpointError": WEIGHTS,
    "ModelNotFoundError": MISSING,
    "DownloadError": DOWNLOADS,
    "DeviceError": DEVICES,
    "MemoryError": MEMORY,
    "OutOfMemoryError": MEMORY,
    "OutputError": OUTPUT,
    "OSError": OUTPUT,
    "PermissionError": OUTPUT,
    "TrainingError": FINETUNING,
    "NonFiniteLossError": FINETUNING,
    "DependencyError": PACKAGES,
    "ModuleNotFoundError": PACKAGES,
    "ImportError": PACKAGES,
    "WorkerNotStartedError": WORKER,
    "WorkerNeverReady": WORKER,
    "WorkerDied": WORKER,
}
"""Class name of an error, as `Failed.error` has it, to the anchor on the page; others belong to `UNEXPECTED`."""


def help_address(error: str) -> str:
    """The page at the section on an error, given the name of its class."""
    return f"{PAGE}#{ANCHORS.get(error, UNEXPECTED)}"


def help_link(error: str) -> str:
    """The address as rich text for a label, and that of the page on this computer for those without internet."""
    links = [(help_address(error), _("Help"))]
    if LOCAL_PAGE.is_file():
        links.append((LOCAL_PAGE.as_uri(), _("without internet")))
    style = f"color: {link_color()};"  # the application's own blue cannot be read on a dark ground
    return " &nbsp; ".join(f'<a href="{address}" style="{style}">{text}</a>' for address, text in links)
