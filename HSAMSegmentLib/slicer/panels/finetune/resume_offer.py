"""The offer to go on with a fine-tuning that was paused, or ended with the program or its worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from slicer.i18n import tr as _

from HSAMSegmentLib.slicer.panels.widgets.dialogs import Dialogs
from HSAMSegmentLib.slicer.panels.widgets.long_words import show_text
from HSAMSegmentLib.workflows.finetune.training_run import TrainingRun, UnfinishedRun, unfinished_runs


class ResumeOffer:
    """Shows the newest unfinished training run; the others come when it is done with."""

    def __init__(self, ui, dialogs: Dialogs, go_on: Callable[[UnfinishedRun, bool], None]) -> None:
        """Take over the widgets; `go_on` is called with a training run and whether it shall be finished at once."""
        self._ui, self._dialogs, self._go_on = ui, dialogs, go_on
        self._training_run: UnfinishedRun | None = None
        self._folders: tuple[Path, ...] = ()
        ui.resumeButton.connect("clicked()", lambda: self._go_on(self._training_run, False))
        ui.finishButton.connect("clicked()", lambda: self._go_on(self._training_run, True))
        ui.discardButton.connect("clicked()", self._discard)

    def show(self, folders: tuple[Path, ...]) -> None:
        """Look into these scratch folders."""
        self._folders = folders
        found = [training_run for folder in dict.fromkeys(folders) for training_run in unfinished_runs(folder)]
        self._training_run = found[0] if found else None
        self._ui.unfinishedBox.visible = bool(found)
        if found:
            show_text(self._ui.unfinishedLabel, _sentence(found[0], len(found)))
            self._ui.finishButton.enabled = found[0].has_state

    def hide(self) -> None:
        """A fine-tuning runs: one at a time."""
        self._ui.unfinishedBox.visible = False

    def _discard(self) -> None:
        question = _("Delete the unfinished fine-tuning '{title}' with everything that it learned?")
        if self._dialogs.confirm(_("Discard"), question.format(title=self._training_run.request.title)):
            TrainingRun(self._training_run.folder).remove()
            self.show(self._folders)


def _sentence(training_run: UnfinishedRun, count: int) -> str:
    parts = [
        _("The fine-tuning of '{title}' is not finished: {done:.1f} of {total:g} min.").format(
            title=training_run.request.title, done=training_run.seconds / 60.0, total=training_run.request.minutes
        )
    ]
    if training_run.best_dice is not None:
        parts.append(_("Best mean Dice so far: {dice:.2f}.").format(dice=training_run.best_dice))
    if count > 1:
        parts.append(_("({count} more wait behind it.)").format(count=count - 1))
    return " ".join(parts)
