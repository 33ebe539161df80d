"""What the panel says: the line below the button, the progress bar, the details to copy, and the help."""

from __future__ import annotations

from slicer.i18n import tr as _

from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.slicer.panels.widgets.dialogs import Dialogs
from HSAMSegmentLib.slicer.panels.widgets.help_links import help_link
from HSAMSegmentLib.slicer.panels.widgets.long_words import one_line, show_text
from HSAMSegmentLib.slicer.panels.widgets.stages import shown_stage
from HSAMSegmentLib.slicer.panels.widgets.theme import problem_color
from HSAMSegmentLib.workflows.events import Failed

_STEPS = 1000


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
