"""One fine-tuning from the click to its end: what the worker tells goes to the views, wishes go to the worker."""

from __future__ import annotations

import logging
from collections.abc import Callable

from slicer.i18n import tr as _

from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.slicer.nodes.finetune.cases import FinetunePlan, FinetuneTask, ResumeTask
from HSAMSegmentLib.slicer.nodes.segment_session import Done, SessionEvent
from HSAMSegmentLib.slicer.panels.engine import Engine, is_last
from HSAMSegmentLib.slicer.panels.finetune.live_view import LiveView
from HSAMSegmentLib.slicer.panels.widgets.status_line import StatusLine
from HSAMSegmentLib.workflows.events import Cancelled, Failed, ValidationPicture, ending_of
from HSAMSegmentLib.workflows.finetune.finetune_request import FinetuneOutcome
from HSAMSegmentLib.workflows.finetune.training_run import PAUSE, STOP, TrainingRun, UnfinishedRun
from HSAMSegmentLib.workflows.finetune.validation_record import ValidationRecord

logger = logging.getLogger(__name__)


class RunView:
    """At most one fine-tuning at a time."""

    def __init__(self, ui, engine: Engine, live: LiveView, status: StatusLine, on_end: Callable[[str], None]) -> None:
        """Take over the buttons; `on_end` is called with the id of the new model, or "" if there is none."""
        self._ui, self._engine, self._live, self._status = ui, engine, live, status
        self._on_end = on_end
        self._training_run: TrainingRun | None = None
        self._wish = ""
        ui.pauseButton.connect("clicked()", self.ask_for_pause)
        ui.stopButton.connect("clicked()", self.ask_for_stop)
        self.refresh_buttons()

    @property
    def is_busy(self) -> bool:
        """Whether a fine-tuning runs."""
        return self._training_run is not None

    def start(self, plan: FinetunePlan) -> None:
        """Begin a new training run.

        Raises:
            HSAMSegmentError: if it cannot start.
        """
        task = FinetuneTask(plan)
        self._engine.start_task(task, self._on_event)
        self._begin(task.training_run, plan.title, task.labels)

    def go_on(self, training_run: UnfinishedRun, finish_now: bool) -> None:
        """Go on with a training run of the disk, or make a model of it as it stands.

        Raises:
            HSAMSegmentError: if it cannot start.
        """
        task = ResumeTask(training_run.request, finish_now=finish_now)
        self._engine.start_task(task, self._on_event)
        self._begin(task.training_run, training_run.request.title, training_run.request.labels, training_run.history)

    def ask_for_pause(self) -> None:
        """Keep everything for later."""
        self._ask(PAUSE, _("Pausing: what was learned is being saved."))

    def ask_for_stop(self) -> None:
        """Keep the best as a model."""
        self._ask(STOP, _("Stopping: the best so far becomes a model."))

    def refresh_buttons(self) -> None:
        """Pause and Stop are for a running fine-tuning that was not asked yet."""
        for button in (self._ui.pauseButton, self._ui.stopButton):
            button.enabled = self.is_busy and not self._wish

    def _begin(self, training_run: TrainingRun, title: str, labels, history=()) -> None:
        self._training_run, self._wish = training_run, ""
        training_run.ask_for("")  # the wish to a process that was killed is not for the next one
        self._live.begin(title, labels, tuple(history))
        self.refresh_buttons()

    def _ask(self, wish: str, sentence: str) -> None:
        if not self.is_busy:
            return
        try:
            self._training_run.ask_for(wish)
        except OSError as error:
            self._status.fail(ending_of(error))
            return
        self._wish = wish
        self._status.say(sentence)
        self.refresh_buttons()

    def _on_event(self, event: SessionEvent) -> None:
        if isinstance(event, Progress) and not self._wish:
            self._status.show_progress(event)
        elif isinstance(event, ValidationRecord):
            self._live.add(event)
        elif isinstance(event, ValidationPicture):
            self._live.show_picture(event)
        elif is_last(event):
            self._end(event)

    def _end(self, event: SessionEvent) -> None:
        training_run, wish, self._training_run, self._wish = self._training_run, self._wish, None, ""
        model_id = ""
        if isinstance(event, Done):
            model_id = self._finish(event.value)
        elif isinstance(event, Failed):
            self._status.fail(_with_comfort(event, training_run))
        elif isinstance(event, Cancelled):
            self._status.say(_("Ended before anything was learned."))
        is_stopped_empty = isinstance(event, Cancelled) and wish == STOP and not training_run.has_state
        if is_stopped_empty or not training_run.request_file.is_file():
            training_run.remove()  # nothing in it is of use
        self._on_end(model_id)

    def _finish(self, outcome: FinetuneOutcome) -> str:
        self._live.finish(outcome)
        if outcome.stopped == "paused":
            self._status.say(_("Paused. Everything is kept: Resume goes on, also after Slicer was closed."))
        else:
            self._status.say(
                _("'{title}' is in the list of models, fine-tuned in {minutes:.1f} min ({reason}).").format(
                    title=outcome.title, minutes=outcome.seconds / 60.0, reason=_reason(outcome.stopped)
                )
            )
        return outcome.model_id


def _reason(stopped: str) -> str:
    reasons = {
        "budget": _("the time is used up"),
        "no more progress": _("it did not get better any more"),
        "loss not a number": _("the loss was not finite; the best state before that was kept"),
        "stopped": _("stopped by you; the best so far was kept"),
    }
    return reasons.get(stopped, stopped)


def _with_comfort(failed: Failed, training_run: TrainingRun | None) -> Failed:
    """A failure, with what is left of the fine-tuning."""
    if training_run is None or not training_run.request_file.is_file():
        return failed
    kept = _("What was learned until a moment before is kept, and can go on (see above).")
    return Failed(f"{failed.cause} {kept}", failed.details, failed.error, failed.exit_code)
