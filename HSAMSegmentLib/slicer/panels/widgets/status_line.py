"""What the panel says: the line below the button, the progress bar, the details to copy, and the help on an error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

import HSAMSegmentLib
from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.slicer.nodes.tables import Columns, write_csv
from HSAMSegmentLib.slicer.panels.widgets.dialogs import Dialogs, ask_csv_path
from HSAMSegmentLib.slicer.panels.widgets.long_words import one_line, show_text
from HSAMSegmentLib.slicer.panels.widgets.theme import link_color, problem_color
from HSAMSegmentLib.workflows.events import Failed, ending_of

_STEPS = 1000

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


class StatusLine:
    """One sentence at a time."""

    def __init__(self, label, bar, copy_button, help_label, dialogs: Dialogs) -> None:
        self._label, self._bar, self._copy_button, self._dialogs = label, bar, copy_button, dialogs
        self._help_label = help_label
        self._details = ""
        self.is_about_readiness = True
        bar.setRange(0, _STEPS)
        for widget in (label, bar, copy_button, help_label):
            widget.setVisible(False)
        copy_button.connect("clicked()", self._copy)

    def say(self, text: str) -> None:
        """Show a sentence; nothing is in progress."""
        self._show(text, color="")

    def say_ready(self, problem: str) -> None:
        """Show what keeps the job from starting, or nothing; gives way to whatever is said next."""
        self._show(problem, color="")
        self.is_about_readiness = True

    def fail(self, failed: Failed) -> None:
        """Show what went wrong, with the details to copy and the way to the page that explains it."""
        self._show(failed.cause, color=problem_color())
        self._details = f"{failed.cause}\n\n{failed.error}\n{failed.details}"
        self._copy_button.setVisible(True)
        self._help_label.setText(help_link(failed.error))
        self._help_label.setVisible(True)

    def show_progress(self, progress: Progress) -> None:
        """Show how far the job is."""
        self._show("", color="")
        self._bar.setVisible(True)
        self._bar.setValue(round(progress.fraction * _STEPS))
        parts = [shown_stage(progress.stage), progress.detail, _readable_eta(progress.eta_seconds)]
        self._bar.setFormat(one_line(" · ".join(part for part in parts if part), self._bar))

    def save_table(self, suggestion: str, columns: Columns, rows: Sequence[Sequence[Any]]) -> None:
        """Ask where to save a table as CSV, save it there, and say so or why not."""
        path = ask_csv_path(self._dialogs, suggestion)
        if path is None:
            return
        try:
            write_csv(path, columns, rows, overwrite=True)
        except HSAMSegmentError as error:
            self.fail(ending_of(error))
        else:
            self.say(_("The table was saved to {path}.").format(path=path))

    def _show(self, text: str, color: str) -> None:
        self.is_about_readiness = not text
        show_text(self._label, text)
        self._label.setVisible(bool(text))
        self._label.setStyleSheet(f"QLabel {{ color: {color}; }}" if color else "")
        self._bar.setVisible(False)
        self._copy_button.setVisible(False)
        self._help_label.setVisible(False)

    def _copy(self) -> None:
        self._dialogs.copy(self._details)


def _readable_eta(seconds: float | None) -> str:
    if seconds is None or seconds < 1:
        return ""
    if seconds < 90:
        return _("{count} s left").format(count=round(seconds))
    return _("{count} min left").format(count=round(seconds / 60))


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


def shown_stage(stage: str) -> str:
    """The translated text of a stage; a stage with a name in it (of a file, of a scan) stays as it is.

    Jobs run in another process, which has no translation.
    """
    known = {
        "Bringing both to one grid": _("Bringing both to one grid"),
        "Building the network": _("Building the network"),
        "Comparing": _("Comparing"),
        "Computing surfaces": _("Computing surfaces"),
        "Cutting the slices": _("Cutting the slices"),
        "Done": _("Done"),
        "Done before": _("Done before"),
        "Encoding the slices": _("Encoding the slices"),
        "Handing over the scan": _("Handing over the scan"),
        "Learning": _("Learning"),
        "Loading the model": _("Loading the model"),
        "Looking at the scans": _("Looking at the scans"),
        "Preparing the volume": _("Preparing the volume"),
        "Reading the labels": _("Reading the labels"),
        "Reading the results": _("Reading the results"),
        "Reading the scan": _("Reading the scan"),
        "Reading the scans": _("Reading the scans"),
        "Segmenting slices": _("Segmenting slices"),
        "Starting": _("Starting"),
        "Tidying the segmentation": _("Tidying the segmentation"),
        "Trying the devices": _("Trying the devices"),
        "Waiting": _("Waiting"),
        "Waiting for another run": _("Waiting for another run"),
        "Waiting for the scheduler": _("Waiting for the scheduler"),
        "Writing the model": _("Writing the model"),
        "Writing the results": _("Writing the results"),
    }
    return known.get(stage, stage)
