"""The offer to go on with a teaching that was paused, or ended with the program or its worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from slicer.i18n import tr as _

from HSAMSegmentLib.slicer.panels.widgets.dialogs import Dialogs
from HSAMSegmentLib.workflows.finetune.training_run import Course, UnfinishedCourse, unfinished_courses


class TeachOffer:
    """Shows the newest unfinished course; the others come when it is done with."""

    def __init__(self, ui, dialogs: Dialogs, go_on: Callable[[UnfinishedCourse, bool], None]) -> None:
        """Take over the widgets; `go_on` is called with a course and whether it shall be finished at once."""
        self._ui, self._dialogs, self._go_on = ui, dialogs, go_on
        self._course: UnfinishedCourse | None = None
        self._folders: tuple[Path, ...] = ()
        ui.resumeButton.connect("clicked()", lambda: self._go_on(self._course, False))
        ui.finishButton.connect("clicked()", lambda: self._go_on(self._course, True))
        ui.discardButton.connect("clicked()", self._discard)

    def show(self, folders: tuple[Path, ...]) -> None:
        """Look into these scratch folders."""
        self._folders = folders
        found = [course for folder in dict.fromkeys(folders) for course in unfinished_courses(folder)]
        self._course = found[0] if found else None
        self._ui.unfinishedBox.visible = bool(found)
        if found:
            self._ui.unfinishedLabel.setText(_sentence(found[0], len(found)))
            self._ui.finishButton.enabled = found[0].has_state

    def hide(self) -> None:
        """A teaching runs: one at a time."""
        self._ui.unfinishedBox.visible = False

    def _discard(self) -> None:
        question = _("Delete the unfinished teaching '{title}' with everything that it learned?")
        if self._dialogs.confirm(_("Discard"), question.format(title=self._course.request.title)):
            Course(self._course.folder).remove()
            self.show(self._folders)


def _sentence(course: UnfinishedCourse, count: int) -> str:
    parts = [
        _("The teaching of '{title}' is not finished: {done:.1f} of {total:g} min.").format(
            title=course.request.title, done=course.seconds / 60.0, total=course.request.minutes
        )
    ]
    if course.best_dice is not None:
        parts.append(_("Best mean Dice so far: {dice:.2f}.").format(dice=course.best_dice))
    if count > 1:
        parts.append(_("({count} more wait behind it.)").format(count=count - 1))
    return " ".join(parts)
