"""Fine-tune a model and add it to the store. Imports torch."""

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
from HSAMSegmentLib.report.model_card import card_text
from HSAMSegmentLib.runtime.disk import DiskSpaceMonitor
from HSAMSegmentLib.runtime.progress import CancelToken, Progress
from HSAMSegmentLib.training.data.cases import Case, open_case
from HSAMSegmentLib.training.finetune import train
from HSAMSegmentLib.training.finetune_state import FinetuneState
from HSAMSegmentLib.training.preparation import prepare
from HSAMSegmentLib.training.request import FinetuneRequest, FinetuneResult, ValidationMetrics, ValidationPreview
from HSAMSegmentLib.weights.bundle import read_manifest
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.workflows.context import Context, Emit
from HSAMSegmentLib.workflows.events import ValidationPicture
from HSAMSegmentLib.workflows.finetune.cost_estimate import note_pace
from HSAMSegmentLib.workflows.finetune.finetune_request import FinetuneOutcome
from HSAMSegmentLib.workflows.finetune.inspect_cases import keep_copy
from HSAMSegmentLib.workflows.finetune.training_run import PAUSE, TrainingRun, new_model_id
from HSAMSegmentLib.workflows.finetune.validation_picture import write_pair
from HSAMSegmentLib.workflows.finetune.validation_record import ValidationRecord

logger = logging.getLogger(__name__)

WATCH_SECONDS = 0.1
ROOM_SECONDS = 1.0
PROGRESS_SECONDS = 0.1


def run(request: FinetuneRequest, context: Context) -> FinetuneOutcome:
    """Fine-tune a model and store it. After any error, the trained weights stay in the training run.

    Raises:
        HSAMSegmentError: from reading, fine-tuning or storing; CancelledError if canceled before anything was learned.
    """
    context.shared.clear()  # a model kept for segmentation would only occupy memory
    training_run = TrainingRun(request.folder)
    if not training_run.folder.is_dir():
        raise RequestError(f"The folder of the fine-tuning, {training_run.folder}, is gone. Start it anew.")
    training_run.mark_running()
    try:
        with _watching(training_run, context.cancel) as watch:
            return _run(request, training_run, context.emit, context.cancel, watch)
    finally:
        training_run.ask_for("")
        training_run.mark_idle()


def _run(
    request: FinetuneRequest, training_run: TrainingRun, emit: Emit, cancel: CancelToken, watch: _Watch
) -> FinetuneOutcome:
    if training_run.is_complete(request.model_id):
        return _store_again(request, training_run)
    emit(Progress(0.0, "Reading the scans"))
    can_resume = request.resume and training_run.state_file(request.model_id).is_file()
    job_request = replace(request, resume=can_resume, overwrite=True, cache_folder=training_run.folder)
    watch.heeds_wishes = not can_resume
    cases = _open_cases(request, training_run, cancel)
    reporter = _Reporter(training_run, emit)
    job = prepare(job_request, cases=cases, progress=reporter.progress, events=reporter.event, cancel=cancel)
    watch.heeds_wishes = True
    reporter.job = job
    if request.finish:
        cancel.cancel()  # nothing will be added to what is on disk
    else:
        learning = [parameter for parameter in job.trainer.network.parameters() if parameter.requires_grad]
        weights = sum(parameter.numel() for parameter in learning)
        watch.room = DiskSpaceMonitor(training_run.folder, weights, has_second=bool(job.setup.recipe.second_plane))
    result = _learn(job, training_run, watch)
    if job.validator.encoding_seconds is not None:
        encoder = job.setup.recipe.architecture.encoder
        note_pace(Store(request.store_folder or None).folder, encoder, request.device, job.validator.encoding_seconds)
    wish = training_run.wish()
    if wish == PAUSE or (cancel.is_cancelled and not wish and not request.finish):
        return _outcome(request, training_run, result, "", "paused")
    model_id = _store(request, training_run, result.path)
    stopped = "stopped" if result.stopped == "cancelled" else result.stopped
    outcome = _outcome(request, training_run, result, model_id, stopped)
    training_run.remove_after_success()
    return outcome


def _learn(job: FinetuneState, training_run: TrainingRun, watch: _Watch) -> FinetuneResult:
    """Run the fine-tuning; if the disk filled up meanwhile, report that.

    Raises:
        OutputError: if the disk is too full to save the training.
    """
    full = OutputError(
        f"The disk of {training_run.folder} is full, so the training could not be saved. Free some space "
        "on it and go on."
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


def _open_cases(request: FinetuneRequest, training_run: TrainingRun, cancel: CancelToken) -> list[Case]:
    """Read all cases; those from files are copied, so that the training run can continue without the files."""
    cases, sources = [], []
    for number, source in enumerate(request.cases, start=1):
        cancel.raise_if_cancelled()
        case = open_case(source, request.labels)
        cases.append(case)
        sources.append(keep_copy(case, training_run.folder, number) if source.scan.path else source)
    if sources != list(request.cases):
        training_run.write_request(replace(request, cases=tuple(sources), resume=False, finish=False))
    return cases


def _store_again(request: FinetuneRequest, training_run: TrainingRun) -> FinetuneOutcome:
    """Store a finished model that could not be stored earlier."""
    path = training_run.model_file(request.model_id)
    manifest, history = read_manifest(path), training_run.history()
    validation = manifest.metrics.get("validation", {})
    outcome = FinetuneOutcome(
        model_id=_store(request, training_run, path),
        title=manifest.title,
        dice=dict(validation.get("dice", {})),
        start_dice=_start_dice(history),
        validated_on=validation.get("on", ""),
        seconds=history[-1].seconds if history else 0.0,
        steps=int(manifest.training.get("steps", 0)),
        stopped=str(manifest.training.get("stopped", "")),
        card=card_text(manifest),
    )
    training_run.remove_after_success()
    return outcome


def _start_dice(history: tuple[ValidationRecord, ...]) -> dict[str, float]:
    """Dice of the starting model; empty without validation."""
    return history[0].dice if history and history[0].step == 0 else {}


class _Watch:
    """Turns a request to pause or stop, or a full disk, into a cancel: the fine-tuning then keeps its weights.

    Attributes:
        room: watches the disk; None before training.
        is_full: whether the disk is full.
        heeds_wishes: False while a saved state is being read; requests then wait until there is something to keep.
        ended: set when there is nothing left to watch.
    """

    def __init__(self, training_run: TrainingRun, cancel: CancelToken) -> None:
        self.room: DiskSpaceMonitor | None = None
        self.is_full = False
        self.heeds_wishes = True
        self.ended = threading.Event()
        self._training_run, self._cancel = training_run, cancel

    def run(self) -> None:
        """Watch until there is a reason to cancel, or the end."""
        next_check = 0.0
        while not self.ended.wait(WATCH_SECONDS):
            if self.room is not None and time.monotonic() >= next_check:
                next_check = time.monotonic() + ROOM_SECONDS
                self.is_full = self.room.check()
            if self.is_full or (self.heeds_wishes and self._training_run.wish()):
                self._cancel.cancel()
                return


@contextmanager
def _watching(training_run: TrainingRun, cancel: CancelToken) -> Iterator[_Watch]:
    watch = _Watch(training_run, cancel)
    watcher = threading.Thread(target=watch.run, name="wishes", daemon=True)
    watcher.start()
    try:
        yield watch
    finally:
        watch.ended.set()
        watcher.join()


class _Reporter:
    """Turns reports of the fine-tuning into job events, the history and the picture."""

    def __init__(self, training_run: TrainingRun, emit: Emit) -> None:
        self.job: FinetuneState | None = None
        self._training_run, self._emit = training_run, emit
        self._told = 0.0

    def progress(self, progress: Progress) -> None:
        """Pass on as many reports as a person can read."""
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS:
            self._told = now
            self._emit(progress)

    def event(self, event: object) -> None:
        """Record and pass on a validation, or a picture."""
        if isinstance(event, ValidationMetrics):
            record = _record(event, 0.0 if self.job is None else self.job.budget.seconds)
            self._training_run.add_record(record)
            self._emit(record)
        elif isinstance(event, ValidationPreview):
            self._show(event)

    def _show(self, preview: ValidationPreview) -> None:
        if self.job is None:
            return
        setup, path = self.job.setup, self._training_run.preview_file
        spacing = setup.validation_sets[0].bank.pixel_spacing_mm
        try:
            write_pair(
                preview.image, preview.reference, preview.predicted, tuple(setup.labels), path, pixel_spacing_mm=spacing
            )
        except (OSError, RuntimeError) as error:  # SimpleITK reports a full disk as a RuntimeError
            logger.warning("The picture of the validation slice could not be written: %s", error)
            return
        self._emit(ValidationPicture(str(path), preview.case, preview.slice_index))


def _record(metrics: ValidationMetrics, seconds: float) -> ValidationRecord:
    loss = metrics.loss if math.isfinite(metrics.loss) else None
    return ValidationRecord(metrics.step, round(seconds, 2), loss, dict(metrics.dice), metrics.kept)


def _store(request: FinetuneRequest, training_run: TrainingRun, path: Path) -> str:
    """Add the bundle to the store; return its ID there.

    Raises:
        OutputError: if it cannot be written; the bundle stays in its folder.
    """
    store = Store(request.store_folder or None)
    taken = {entry.id for entry in store.models()}
    wanted = request.model_id
    try:
        return store.import_file(path, model_id=None if wanted not in taken else new_model_id(wanted, taken)).id
    except OutputError as error:
        raise OutputError(f"{error} The model is kept in {training_run.folder}, and can be stored later.") from error


def _outcome(
    request: FinetuneRequest, training_run: TrainingRun, result: FinetuneResult, model_id: str, stopped: str
) -> FinetuneOutcome:
    manifest = read_manifest(result.path)
    return FinetuneOutcome(
        model_id=model_id,
        title=manifest.title,
        dice=dict(result.dice),
        start_dice=_start_dice(training_run.history()),
        validated_on=result.validated_on,
        seconds=result.seconds,
        steps=result.steps,
        stopped=stopped,
        notes=result.advice,
        card=card_text(manifest),
    )
