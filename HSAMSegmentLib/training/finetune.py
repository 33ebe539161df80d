"""Teach a model from labelled scans: the whole job, from files to a bundle that segments."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from HSAMSegmentLib.errors import CancelledError, HSAMSegmentError, OutputError, RequestError, TrainingError
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.runtime.atomic_files import refuse_existing
from HSAMSegmentLib.runtime.devices import choose_device
from HSAMSegmentLib.runtime.progress import CancelToken, Progress, ProgressCallback, ignore_progress, interruptible
from HSAMSegmentLib.training.data.augment import AugmentRule
from HSAMSegmentLib.training.data.batches import Batches, CachedBatches, LiveBatches
from HSAMSegmentLib.training.data.cases import (
    Case,
    common_labels,
    distinct_cases,
    matched_labels,
    read_case,
    refuse_taught_validation,
)
from HSAMSegmentLib.training.data.slice_bank import SliceBank
from HSAMSegmentLib.training.export import finish
from HSAMSegmentLib.training.features.adaptation import FULL, SplitNetwork, set_trainable
from HSAMSegmentLib.training.features.cached_features import NOTE_SECONDS, KeepingRules, KeptFeatures
from HSAMSegmentLib.training.features.feature_cache import CacheOwner
from HSAMSegmentLib.training.initialization import Start, StartSource, build_start, open_start
from HSAMSegmentLib.training.loop.budget import Budget, EncodingPace
from HSAMSegmentLib.training.loop.checkpointing import PeriodicSaver, load_state, save_state, state_path
from HSAMSegmentLib.training.loop.interruption import CancellableComputation
from HSAMSegmentLib.training.loop.losses import TEACHING_SMOOTHING, autosam_loss, hsam_loss
from HSAMSegmentLib.training.loop.schedules import hsam_last_stage_weight
from HSAMSegmentLib.training.loop.step_pace import StepPace
from HSAMSegmentLib.training.loop.trainer import Learner, NotANumberError
from HSAMSegmentLib.training.loop.validation import ValidationSet, hold_out_blocks, whole_case
from HSAMSegmentLib.training.loop.validator import Looks
from HSAMSegmentLib.training.recipe import TeachPlan, make_plan
from HSAMSegmentLib.training.request import (
    SCHEDULES,
    CaseFiles,
    FinetuneNote,
    TeachEvents,
    TeachRequest,
    TeachResult,
    ignore_events,
)
from HSAMSegmentLib.training.second_plane import FIRST_PLANE_SHARE, Comparison, OtherPlane, sentence_on
from HSAMSegmentLib.training.setup import TeachSetup, bank_of, draw_of

Found = TypeVar("Found")

logger = logging.getLogger(__name__)

DICE_WEIGHT = 0.5
_SLOW_SECONDS = 0.3
_WRITTEN_PER_SECOND = 50e6
_PLOT_SECONDS = 1.5
VALIDATED_ON_PART = "This network is slow on this computer: its Dice was measured on a part of the held-out slices."


def teach(
    request: TeachRequest,
    *,
    cases: Sequence[Case] | None = None,
    validation: Sequence[Case] | None = None,
    progress: ProgressCallback = ignore_progress,
    events: TeachEvents = ignore_events,
    cancel: CancelToken | None = None,
) -> TeachResult:
    """Teach a model and write it.

    Args:
        request: what to do.
        cases: labelled scans in memory, instead of the request's files.
        validation: scans to validate on in memory, instead of the request's files.
        progress: told how far the job is.
        events: gets `TeachMetrics` and `TeachPreview` objects.
        cancel: looked at in every operation of a slow network; what was good is kept.

    Returns:
        The result; `stopped` says whether it ended by itself.

    Raises:
        TrainingError: if there is nothing to learn from, or if the loss was never a number.
        VolumeError: if a scan cannot be read.
        CheckpointError: if the starting model cannot be used.
        OutputError: if the output exists or cannot be written.
        CancelledError: if it was cancelled before anything was learned.
    """
    job = TeachJob(request, progress, events, cancel or CancelToken())
    job.prepare(cases, validation)
    return job.run()


class TeachJob:
    """One run of `teach`."""

    def __init__(
        self, request: TeachRequest, progress: ProgressCallback, events: TeachEvents, cancel: CancelToken
    ) -> None:
        refuse_existing(request.output, request.overwrite)
        for extra in (request.report, request.plot):
            if extra is not None:
                refuse_existing(extra, request.overwrite)
        if request.schedule not in ("", *SCHEDULES):
            raise RequestError(f"The schedule '{request.schedule}' is unknown; choose {', '.join(SCHEDULES)}.")
        self.request, self.cancel = request, cancel
        self.progress, self.events = progress, events
        self.budget = Budget(minutes=request.minutes, epochs=request.epochs)
        self.device = torch.device(choose_device(request.device).name)
        self.notes: list[str] = []
        self.advice: list[str] = []
        self.stopped = "budget"
        self.first_part = 1.0
        self.other: OtherPlane | None = None
        self.comparison: Comparison | None = None

    def prepare(self, cases: Sequence[Case] | None, validation: Sequence[Case] | None) -> None:
        """Read, check, plan and build."""
        torch.manual_seed(self.request.seed)
        self._tell("Reading the scans")
        distinct, doubled = distinct_cases(self._read(self.request.cases, cases))
        training, labels, notes = common_labels(distinct)
        given, more = matched_labels(self._read(self.request.validation, validation), labels)
        refuse_taught_validation(training, given)
        self._advise([*doubled, *notes, *more])
        self._tell("Building the network")
        source = self._uninterrupted(lambda: open_start(self.request))
        plan = make_plan(self.request, training, source.manifest, len(labels), source.encoder)
        start = self._start(source, plan, labels)
        self._tell("Cutting the slices")
        banks = tuple(self._bank(case, plan) for case in training)
        held = self._validation_sets(banks, tuple(self._bank(case, plan) for case in given))
        draw = draw_of(banks, held, plan, num_classes=len(labels), batch_size=self.request.batch_size)
        self.setup = TeachSetup(labels, plan, start, tuple(training), tuple(given), draw, held)
        self.steps_per_epoch = self.setup.steps_per_epoch
        set_trainable(start.network.to(self.device), plan.adaptation)
        self.learner = Learner(
            start.network,
            rate=plan.rate,
            encoder_share=plan.encoder_share,
            seed=self.request.seed,
            device=self.device,
            schedule=plan.schedule,
            steps_per_epoch=self.steps_per_epoch,
        )
        self.learner.guard = self._guard
        self.budget.set_steps_per_epoch(self.steps_per_epoch)
        self.budget.writing_seconds += self._writing_seconds()
        self.looks = Looks(self.setup, self.learner, self.budget, self.events, self.cancel)
        self._resume()

    def run(self) -> TeachResult:
        """Learn until the budget is used up, then write the best state."""
        saver = PeriodicSaver(self._save, every_seconds=self.request.save_seconds)
        try:
            if self.other is None:
                self._learn_first_plane(saver)
            if self.setup.plan.other_plane and self.setup.held:
                self._learn_other_plane(saver)
        except CancelledError:
            self._after_cancel(saver)
        except NotANumberError as error:
            self._after_bad_loss(error)
        if self.other is not None:
            self._note([sentence_on(self.other.plane, self.comparison)])
        if saver.complaint:
            self._note([f"The training could not be saved for resuming: {saver.complaint}"])
        self._tell("Writing the model")
        try:
            return finish(self)
        except OutputError:
            saver.now()
            raise

    def look(self) -> None:
        """Validate the averaged weights, keep them if they are the best, and tell."""
        self.looks.look()

    def _learn_first_plane(self, saver: PeriodicSaver) -> None:
        batches = self._batches(saver)
        try:
            self._learn(batches, saver)
        finally:
            batches.close()

    def _learn(self, batches: Batches, saver: PeriodicSaver) -> None:
        if self.looks.begin():
            self._advise([VALIDATED_ON_PART])
        pace = StepPace(self.budget, batches)
        while True:
            if self.looks.is_due:
                self.look()
                if self.looks.is_pointless_to_go_on:
                    self.stopped = "no more progress"
                    return
            if self._is_first_plane_done and self.learner.steps > 0:
                break
            self._step(self.learner, batches, pace, saver)
        if not self.looks.has_looked:
            self.look()
        if self.learner.best is None:
            raise NotANumberError("The weights grew beyond all bounds, so there is nothing to keep. Try a lower rate.")

    @property
    def _is_first_plane_done(self) -> bool:
        has_other = self.setup.plan.other_plane and self.setup.held
        return self.budget.is_used_up or bool(has_other and self.budget.fraction >= FIRST_PLANE_SHARE)

    def _learn_other_plane(self, saver: PeriodicSaver) -> None:
        """Teach a second network, and keep it if both together are better than the first alone."""
        if self.other is None:
            self.first_part = self.budget.fraction
        self.learner.finish()
        first = self.learner.load_best()
        other = self.other = self.other or self._other_plane(first)
        network = other.learner.network.to(memory_format=torch.channels_last)
        rule_now = partial(self._rule_at, other.learner)
        batches = LiveBatches(network, other.draw, self.device, rule_now)
        pace = StepPace(self.budget, batches)
        looked_at = sum(len(item.slices) for item in self.setup.held)
        self.budget.writing_seconds += self.budget.look_seconds * other.compared_inputs / looked_at
        while not (self.budget.is_used_up or self.budget.fraction >= self.first_part / FIRST_PLANE_SHARE):
            self._step(other.learner, batches, pace, saver, f" {other.plane} slices")
        if other.learner.steps and other.learner.is_sound:
            self._tell(f"Comparing with and without {other.plane} slices")
            self.comparison = self._uninterrupted(lambda: other.compare(first, self.cancel.raise_if_cancelled))

    def _other_plane(self, first: SegmentationNetwork) -> OtherPlane:
        setup, request = self.setup, self.request
        self._tell("Cutting the slices")
        other = self._uninterrupted(
            lambda: OtherPlane(setup.plan.other_plane, setup, first, seed=request.seed, batch_size=request.batch_size)
        )
        other.learner.guard = self._guard
        return other

    def _rule_at(self, learner: Learner) -> AugmentRule:
        return self.setup.plan.augment_at(learner.steps)

    def _step(self, learner: Learner, batches: Batches, pace: StepPace, saver: PeriodicSaver, what: str = "") -> None:
        self.cancel.raise_if_cancelled()
        began = time.monotonic()
        learner.step(batches, self._loss, self.budget.fraction)
        self.budget.advance(time.monotonic() - began)
        self._note(pace.after_step())
        saver.tick()
        self._tell(f"Learning{what}", f"step {self.steps}, loss {learner.loss:.3f}")

    @property
    def steps(self) -> int:
        """Of the optimizer, for all planes."""
        return self.learner.steps + (self.other.learner.steps if self.other is not None else 0)

    def _loss(self, stages: Sequence[Tensor], labels: Tensor) -> Tensor:
        if len(stages) == 1 and self.setup.plan.architecture.head != "samed":
            return autosam_loss(stages[0], labels)
        return 2.0 * hsam_loss(
            stages,
            labels,
            last_weight=hsam_last_stage_weight(self.steps / self.steps_per_epoch),
            dice_weight=DICE_WEIGHT,
            smoothing=TEACHING_SMOOTHING,
        )

    def _batches(self, saver: PeriodicSaver) -> Batches:
        network, plan, draw = self.learner.network, self.setup.plan, self.setup.draw
        self.cancel.raise_if_cancelled()
        if plan.adaptation == FULL:
            network = network.to(memory_format=torch.channels_last)
            return LiveBatches(network, draw, self.device, partial(self._rule_at, self.learner))

        def tell(done: int, most: int) -> None:
            self.cancel.raise_if_cancelled()
            saver.tick()
            self._tell("Encoding the slices", f"{done} of at most {most}")

        saver.now()
        rules = KeepingRules(
            capacity_bytes=self.request.cache_bytes,
            parent=self.request.cache_folder,
            owner=CacheOwner(self.setup.features_key(self.request, self.device.type), state_path(self.request.output)),
            pace=EncodingPace(self.budget),
            is_resumed=self.looks.is_settled,
            progress=tell,
            note_seconds=min(NOTE_SECONDS, self.request.save_seconds),
        )
        split = SplitNetwork(network.eval(), plan.adaptation)
        with CancellableComputation(self.cancel):
            generator = torch.Generator().manual_seed(self.request.seed + 1)
            kept = KeptFeatures(split, draw, self.looks.held, self.device, generator, rules)
        self._advise(kept.shortfalls)
        self.looks.use_kept(kept)
        return CachedBatches(split, draw, self.device, kept)

    def _writing_seconds(self) -> float:
        """About how long writing the model in half precision and the plot takes."""
        written = sum(parameter.numel() for parameter in self.learner.network.parameters() if parameter.requires_grad)
        return 2.0 * written / _WRITTEN_PER_SECOND + (_PLOT_SECONDS if self.request.plot else 0.0)

    def _guard(self) -> AbstractContextManager:
        """Looks for a cancel in every operation of a step that takes long; others are short enough."""
        slow = self.budget.step_seconds > _SLOW_SECONDS or self.budget.step_seconds == 0.0
        return CancellableComputation(self.cancel) if slow else nullcontext()

    def _uninterrupted(self, work: Callable[[], Found]) -> Found:
        """Work that cannot look for a cancel itself; it is left behind on one."""
        return interruptible(work, self.cancel)

    def _start(self, source: StartSource, plan: TeachPlan, labels: LabelSet) -> Start:
        start = self._uninterrupted(lambda: build_start(source, plan, labels))
        self._note(start.notes)
        return start

    def _read(self, files: Sequence[CaseFiles], given: Sequence[Case] | None) -> list[Case]:
        found = list(given or ())
        if given is None:
            for item in files:
                found.append(self._uninterrupted(lambda item=item: self._read_one(item)))
        for case in found:
            self._advise(case.notes)
        return found

    def _read_one(self, item: CaseFiles) -> Case:
        return read_case(item.image, item.labels, names=self.request.names or None)

    def _bank(self, case: Case, plan: TeachPlan) -> SliceBank:
        return self._uninterrupted(lambda: bank_of(case, plan))

    def _validation_sets(self, banks: tuple[SliceBank, ...], given: tuple[SliceBank, ...]) -> tuple[ValidationSet, ...]:
        if given:
            return tuple(whole_case(bank) for bank in given)
        held = tuple(item for item in (hold_out_blocks(bank) for bank in banks) if item is not None)
        if held:
            self._note(["Validated on held-out slices of the same scan: the Dice says little about other scans."])
        else:
            self._note(["Too few labelled slices to hold some out: nothing was validated, the last state is kept."])
        return held

    def _save(self) -> None:
        save_state(
            state_path(self.request.output),
            {
                "learner": self.learner.state(),
                "other": None if self.other is None else self.other.learner.state(),
                "seconds": self.budget.seconds,
                "look_seconds": self.budget.look_seconds,
                "first_part": self.first_part,
                "facts": self.setup.facts(self.request),
            },
        )

    def _resume(self) -> None:
        path = state_path(self.request.output)
        if not self.request.resume:
            return
        if not path.is_file():
            self._note(["There was no interrupted training of this model to resume; it started anew."])
            return
        state = load_state(path)
        if state["facts"] != self.setup.facts(self.request):
            raise RequestError(
                "The interrupted training was started with other scans, labels or options. Start it with the same "
                f"ones, or delete {path.name} to start anew."
            )
        self.learner.resume(state["learner"])
        if state["other"] is not None:
            self.other = self._other_plane(self.learner.load_best())
            self.other.learner.resume(state["other"])
        self.budget.resume(state["seconds"], self.steps)
        self.budget.look_seconds, self.first_part = state["look_seconds"], state["first_part"]
        self.looks.resume()
        self._note([f"Resumed at step {self.steps}."])

    def _after_cancel(self, saver: PeriodicSaver) -> None:
        self._keep_something()
        saver.now()
        if self.learner.best is None or self.learner.steps == 0:
            raise CancelledError("Cancelled before there was anything to keep.")
        self.stopped = "cancelled"

    def _after_bad_loss(self, error: HSAMSegmentError) -> None:
        self._keep_something()
        if self.learner.best is None or self.learner.steps == 0:
            raise TrainingError(str(error)) from error
        self.stopped = "loss not a number"
        self._note([f"{error} The best state before that is kept."])

    def _keep_something(self) -> None:
        """The newest state where nothing was validated yet."""
        if self.learner.best is None and self.learner.steps > 0 and self.learner.keep_if_best(None):
            self._advise(["It ended before the first validation: the newest state is kept."])

    def _tell(self, stage: str, detail: str = "") -> None:
        self.progress(Progress(self.budget.fraction, stage, detail, self.budget.eta_seconds))

    def _advise(self, sentences: Sequence[str]) -> None:
        """Note what whoever uses the model should read, too."""
        self._note(sentences)
        self.advice += [sentence for sentence in sentences if sentence not in self.advice]

    def _note(self, sentences: Sequence[str]) -> None:
        for sentence in sentences:
            if sentence not in self.notes:
                self.notes.append(sentence)
                self.events(FinetuneNote(sentence))
