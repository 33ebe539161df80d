"""The job that teaches a model and puts it into the store. Imports torch."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from HSAMSegmentLib.errors import CancelledError, OutputError, RequestError
from HSAMSegmentLib.runtime.disk_space_monitor import ScratchRoom
from HSAMSegmentLib.runtime.progress import CancelToken, Progress
from HSAMSegmentLib.training.data.cases import Case
from HSAMSegmentLib.training.finetune import train
from HSAMSegmentLib.training.finetune_state import FinetuneState
from HSAMSegmentLib.training.preparation import prepare
from HSAMSegmentLib.training.request import FinetuneRequest, FinetuneResult, ValidationMetrics, ValidationPreview
from HSAMSegmentLib.weights.bundle import read_manifest
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.workflows.context import Context, Emit
from HSAMSegmentLib.workflows.events import Metrics, TeachPicture
from HSAMSegmentLib.workflows.finetune.encoder_pace import note_pace
from HSAMSegmentLib.workflows.finetune.finetune_request import TaughtOutcome, TeachJobRequest
from HSAMSegmentLib.workflows.finetune.inspect_cases import keep_copy, open_case
from HSAMSegmentLib.workflows.finetune.model_summary import card_text
from HSAMSegmentLib.workflows.finetune.training_run import PAUSE, Course, Look, new_model_id
from HSAMSegmentLib.workflows.finetune.validation_picture import write_pair

logger = logging.getLogger(__name__)

WATCH_SECONDS = 0.1
ROOM_SECONDS = 1.0
PROGRESS_SECONDS = 0.1


def run(request: TeachJobRequest, context: Context) -> TaughtOutcome:
    """Fine-tune a model and store it. What was learned stays in the training run on any error.

    Raises:
        HSAMSegmentError: from reading, teaching or storing; CancelledError if nothing was learned before a cancel.
    """
    context.warm.clear()  # a model kept for segmenting would only take memory away
    course = Course(request.folder)
    if not course.folder.is_dir():
        raise RequestError(f"The folder of the teaching, {course.folder}, is gone. Start it anew.")
    course.mark_running()
    try:
        with _watching(course, context.cancel) as watch:
            return _run(request, course, context.emit, context.cancel, watch)
    finally:
        course.ask_for("")
        course.mark_idle()


def _run(request: TeachJobRequest, course: Course, emit: Emit, cancel: CancelToken, watch: _Watch) -> TaughtOutcome:
    if course.is_taught(request.model_id):
        return _store_again(request, course)
    emit(Progress(0.0, "Reading the scans"))
    engine_request = _engine_request(request, course)
    watch.heeds_wishes = not engine_request.resume
    cases = _open_cases(request, course, cancel)
    teller = _Teller(course, emit)
    job = prepare(engine_request, cases=cases, progress=teller.progress, events=teller.event, cancel=cancel)
    watch.heeds_wishes = True
    teller.job = job
    if request.finish:
        cancel.cancel()  # what is on the disk is all that there will be
    else:
        learning = [parameter for parameter in job.trainer.network.parameters() if parameter.requires_grad]
        weights = sum(parameter.numel() for parameter in learning)
        watch.room = ScratchRoom(course.folder, weights, has_second=bool(job.setup.recipe.second_plane))
    result = _learn(job, course, watch)
    if job.validator.encoding_seconds is not None:
        encoder = job.setup.recipe.architecture.encoder
        note_pace(Store(request.store_folder or None).folder, encoder, request.device, job.validator.encoding_seconds)
    wish = course.wish()
    if wish == PAUSE or (cancel.is_cancelled and not wish and not request.finish):
        return _outcome(request, course, result, "", "paused")
    model_id = _store(request, course, result.path)
    stopped = "stopped" if result.stopped == "cancelled" else result.stopped
    outcome = _outcome(request, course, result, model_id, stopped)
    course.remove_after_success()
    return outcome


def _learn(job: FinetuneState, course: Course, watch: _Watch) -> FinetuneResult:
    """Run; where the disk got full meanwhile, that is what is told.

    Raises:
        OutputError: if there is no room any more to save what is learned.
    """
    full = OutputError(
        f"The disk of {course.folder} is full, so what is learned could not be saved any more. Free some space on it "
        "and go on."
    )
    try:
        result = train(job)
    except (OutputError, CancelledError) as error:
        if watch.is_full:
            raise full from error
        raise
    if watch.is_full:
        raise full
    return result


def _open_cases(request: TeachJobRequest, course: Course, cancel: CancelToken) -> list[Case]:
    """Read all cases; those of files are copied, so that the course can go on when the files are gone."""
    cases, sources = [], []
    for number, source in enumerate(request.cases, start=1):
        cancel.raise_if_cancelled()
        case = open_case(source, request.labels)
        cases.append(case)
        sources.append(keep_copy(case, course.folder, number) if source.scan.path else source)
    if sources != list(request.cases):
        course.write_request(replace(request, cases=tuple(sources), resume=False, finish=False))
    return cases


def _store_again(request: TeachJobRequest, course: Course) -> TaughtOutcome:
    """What was taught to the end and could not be stored then."""
    path = course.model_file(request.model_id)
    manifest, history = read_manifest(path), course.history()
    validation = manifest.metrics.get("validation", {})
    outcome = TaughtOutcome(
        model_id=_store(request, course, path),
        title=manifest.title,
        dice=dict(validation.get("dice", {})),
        start_dice=_start_dice(history),
        validated_on=validation.get("on", ""),
        seconds=history[-1].seconds if history else 0.0,
        steps=int(manifest.training.get("steps", 0)),
        stopped=str(manifest.training.get("stopped", "")),
        card=card_text(manifest),
    )
    course.remove_after_success()
    return outcome


def _start_dice(history: tuple[Look, ...]) -> dict[str, float]:
    """Dice of the starting model, empty if nobody looked."""
    return history[0].dice if history and history[0].step == 0 else {}


def _engine_request(request: TeachJobRequest, course: Course) -> FinetuneRequest:
    return FinetuneRequest(
        output=course.model_file(request.model_id),
        title=request.title,
        head=request.head,
        start_from=request.start_from,
        encoder=request.encoder,
        minutes=request.minutes,
        seed=request.seed,
        device=request.device,
        resume=request.resume and course.state_file(request.model_id).is_file(),
        overwrite=True,
        cache_folder=course.folder,
    )


class _Watch:
    """Turns a wish for a pause or a stop, and a full disk, into a cancel: the teaching then keeps what it has.

    Attributes:
        room: watches the disk, None before training.
        is_full: whether the disk is full.
        heeds_wishes: False while a saved state is being read; a wish then waits until there is something to keep.
        ended: set when there is nothing left to watch.
    """

    def __init__(self, course: Course, cancel: CancelToken) -> None:
        self.room: ScratchRoom | None = None
        self.is_full = False
        self.heeds_wishes = True
        self.ended = threading.Event()
        self._course, self._cancel = course, cancel

    def run(self) -> None:
        """Look until there is a reason to cancel, or the end."""
        next_look = 0.0
        while not self.ended.wait(WATCH_SECONDS):
            if self.room is not None and time.monotonic() >= next_look:
                next_look = time.monotonic() + ROOM_SECONDS
                self.is_full = self.room.look()
            if self.is_full or (self.heeds_wishes and self._course.wish()):
                self._cancel.cancel()
                return


@contextmanager
def _watching(course: Course, cancel: CancelToken) -> Iterator[_Watch]:
    watch = _Watch(course, cancel)
    watcher = threading.Thread(target=watch.run, name="wishes", daemon=True)
    watcher.start()
    try:
        yield watch
    finally:
        watch.ended.set()
        watcher.join()


class _Teller:
    """Turns what the teaching tells into events of the job, into the history and into the picture."""

    def __init__(self, course: Course, emit: Emit) -> None:
        self.job: FinetuneState | None = None
        self._course, self._emit = course, emit
        self._told = 0.0

    def progress(self, progress: Progress) -> None:
        """Pass on as many reports as somebody can read."""
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS:
            self._told = now
            self._emit(progress)

    def event(self, event: object) -> None:
        """Keep and pass on a look, or a picture."""
        if isinstance(event, ValidationMetrics):
            look = _look(event, self.job.budget.seconds)
            self._course.add_look(look)
            self._emit(Metrics(look.step, _values(look)))
        elif isinstance(event, ValidationPreview):
            self._show(event)

    def _show(self, preview: ValidationPreview) -> None:
        setup, path = self.job.setup, self._course.preview_file
        spacing = setup.validation_sets[0].bank.pixel_spacing_mm
        try:
            write_pair(
                preview.image, preview.reference, preview.predicted, tuple(setup.labels), path, pixel_spacing_mm=spacing
            )
        except (OSError, RuntimeError) as error:  # SimpleITK reports a full disk as a RuntimeError
            logger.warning("The picture of the validation slice could not be written: %s", error)
            return
        self._emit(TeachPicture(str(path), preview.case, preview.slice_index))


def _look(metrics: ValidationMetrics, seconds: float) -> Look:
    loss = metrics.loss if math.isfinite(metrics.loss) else None
    return Look(metrics.step, round(seconds, 2), loss, dict(metrics.dice), metrics.kept)


def _values(look: Look) -> dict[str, float]:
    """The numbers of a look under the names that `Metrics` has for them."""
    values = {"seconds": look.seconds, "best": float(look.best)}
    if look.loss is not None:
        values["loss"] = look.loss
    return {**values, **{f"dice/{name}": dice for name, dice in look.dice.items()}}


def _store(request: TeachJobRequest, course: Course, path: Path) -> str:
    """Put the bundle into the store; returns its id there.

    Raises:
        OutputError: if it cannot be written; the bundle stays in the course.
    """
    store = Store(request.store_folder or None)
    taken = {entry.id for entry in store.models()}
    wanted = request.model_id
    try:
        return store.import_file(path, model_id=None if wanted not in taken else new_model_id(wanted, taken)).id
    except OutputError as error:
        raise OutputError(f"{error} The model is kept in {course.folder}, and can be stored later.") from error


def _outcome(
    request: TeachJobRequest, course: Course, result: FinetuneResult, model_id: str, stopped: str
) -> TaughtOutcome:
    manifest = read_manifest(result.path)
    return TaughtOutcome(
        model_id=model_id,
        title=manifest.title,
        dice=dict(result.dice),
        start_dice=_start_dice(course.history()),
        validated_on=result.validated_on,
        seconds=result.seconds,
        steps=result.steps,
        stopped=stopped,
        notes=result.advice,
        card=card_text(manifest),
    )
