"""Teach a model from labelled scans: the whole job, from files to a bundle that segments."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from HSAMSegmentLib.errors import CancelledError, HSAMSegmentError, RequestError, TrainingError
from HSAMSegmentLib.inference.devices import choose_device
from HSAMSegmentLib.inference.prediction import cancellable
from HSAMSegmentLib.output import refuse_existing
from HSAMSegmentLib.progress import CancelToken, Progress, ProgressCallback, ignore_progress
from HSAMSegmentLib.training.adaptation import FULL, SplitNetwork, set_trainable
from HSAMSegmentLib.training.batches import Batches, CachedBatches, Draw, LiveBatches
from HSAMSegmentLib.training.budget import Budget
from HSAMSegmentLib.training.cases import Case, common_labels, matched_labels, read_case
from HSAMSegmentLib.training.checkpointing import PeriodicSaver, load_state, save_state, state_path
from HSAMSegmentLib.training.learner import Learner, NotANumberError
from HSAMSegmentLib.training.losses import TEACHING_SMOOTHING, autosam_loss, hsam_loss
from HSAMSegmentLib.training.outcome import finish
from HSAMSegmentLib.training.plan import TeachPlan, make_plan
from HSAMSegmentLib.training.request import (
    TeachEvents,
    TeachMetrics,
    TeachPreview,
    TeachRequest,
    TeachResult,
    ignore_events,
)
from HSAMSegmentLib.training.sampling import BalancedSampler
from HSAMSegmentLib.training.slice_bank import SliceBank, build_slice_bank
from HSAMSegmentLib.training.starting import Start, build_start, open_start
from HSAMSegmentLib.training.validation import ValidationSet, hold_out_blocks, predict_slices, validate, whole_case
from HSAMSegmentLib.volumes.labels import LabelSet

logger = logging.getLogger(__name__)

LAST_STAGE_WEIGHT = 0.6
DICE_WEIGHT = 0.5
LOOKS = 20
PATIENCE = 7
ENCODING_SHARE = 0.4
_VALIDATION_SHARE = 0.15


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
        cancel: looked at in every layer of the network; what was good is kept.

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


@dataclass(frozen=True)
class TeachSetup:
    """What a job works with once everything is read."""

    labels: LabelSet
    plan: TeachPlan
    start: Start
    training: tuple[Case, ...]
    draw: Draw
    held: tuple[ValidationSet, ...]


class TeachJob:
    """One run of `teach`."""

    def __init__(
        self, request: TeachRequest, progress: ProgressCallback, events: TeachEvents, cancel: CancelToken
    ) -> None:
        refuse_existing(request.output, request.overwrite)
        for extra in (request.report, request.plot):
            if extra is not None:
                refuse_existing(extra, request.overwrite)
        self.request, self.cancel = request, cancel
        self.progress, self.events = progress, events
        self.budget = Budget(minutes=request.minutes, epochs=request.epochs)
        self.device = torch.device(choose_device(request.device).name)
        self.notes: list[str] = []
        self.stopped = "budget"
        self.looked_at = self.look_seconds = 0.0

    def prepare(self, cases: Sequence[Case] | None, validation: Sequence[Case] | None) -> None:
        """Read, check, plan and build."""
        torch.manual_seed(self.request.seed)
        self._tell("Reading the scans")
        training, labels, notes = common_labels(self._read(self.request.cases, cases))
        given, more = matched_labels(self._read(self.request.validation, validation), labels)
        self._note([*notes, *more])
        source = open_start(self.request)
        plan = make_plan(self.request, training, source.manifest, len(labels))
        self._tell("Building the network")
        start = build_start(source, plan, labels)
        self._note(start.notes)
        banks = tuple(self._bank(case, plan) for case in training)
        held = self._validation_sets(banks, tuple(self._bank(case, plan) for case in given))
        draw = Draw(
            banks=banks,
            sampler=self._sampler(banks, held, len(labels)),
            rule=plan.augment,
            image_size=plan.architecture.encoder.image_size,
            batch_size=self.request.batch_size,
        )
        self.setup = TeachSetup(labels, plan, start, tuple(training), draw, held)
        set_trainable(start.network.to(self.device), plan.adaptation)
        self.learner = Learner(
            start.network,
            rate=plan.rate,
            encoder_share=plan.encoder_share,
            seed=self.request.seed,
            device=self.device,
        )
        self.steps_per_epoch = max(1, -(-len(draw.sampler) // draw.batch_size))
        self.budget.set_steps_per_epoch(self.steps_per_epoch)
        self._resume()

    def run(self) -> TeachResult:
        """Learn until the budget is used up, then write the best state."""
        saver = PeriodicSaver(self._save)
        try:
            with cancellable(self.learner.network, self.cancel), cancellable(self.learner.average.network, self.cancel):
                batches = self._batches()
                try:
                    self._learn(batches, saver)
                finally:
                    batches.close()
        except CancelledError:
            self._after_cancel(saver)
        except NotANumberError as error:
            self._after_bad_loss(error)
        if saver.complaint:
            self._note([f"The training could not be saved for resuming: {saver.complaint}"])
        self._tell("Writing the model")
        return finish(self)

    def _learn(self, batches: Batches, saver: PeriodicSaver) -> None:
        while True:
            if self._is_time_to_look():
                self.look()
                if self._no_more_progress():
                    self.stopped = "no more progress"
                    return
            if self.budget.is_used_up:
                break
            self.cancel.raise_if_cancelled()
            self.learner.step(batches, self._loss, self.budget.fraction)
            self.budget.advance()
            saver.tick()
            self._tell("Learning", f"step {self.learner.steps}, loss {self.learner.loss:.3f}")
        if not self._has_looked():
            self.look()

    def look(self) -> None:
        """Validate the averaged weights, keep them if they are the best, and tell."""
        started = self.budget.seconds
        dice: dict[str, float] = {}
        mean = None
        if self.setup.held:
            network = self.learner.average.network
            result = validate(
                network,
                self.setup.held,
                num_classes=len(self.setup.labels),
                device=self.device,
                between_batches=self.cancel.raise_if_cancelled,
            )
            named = zip((label.name for label in self.setup.labels), result.dice)
            dice = {name: value for name, value in named if value == value}
            mean = result.mean
        best = self.learner.keep_if_best(mean)
        if self.setup.held and best:
            self._preview()
        metrics = TeachMetrics(
            step=self.learner.steps,
            epoch=self.learner.steps / self.steps_per_epoch,
            loss=self.learner.loss,
            dice=dice,
            best=best,
            eta_seconds=self.budget.eta_seconds,
        )
        self.learner.history.append(metrics)
        self.events(metrics)
        self.looked_at = self.budget.seconds
        self.look_seconds = self.looked_at - started
        self.budget.reserve_seconds = 1.1 * self.look_seconds + 0.5

    def _preview(self) -> None:
        """The validation slice with the most labelled pixels."""
        held = self.setup.held[0]
        filled = (held.bank.reference[list(held.slices)] != 0).flatten(1).sum(dim=1)
        index = held.slices[int(filled.argmax())]
        predicted = predict_slices(self.learner.average.network, held.bank, [index], device=self.device)[0]
        image = held.bank.framing.logits(held.bank.all_tiles([index])[:, 1:2])[0, 0]
        self.events(
            TeachPreview(
                case=held.bank.name,
                slice_index=index,
                image=(image.clamp(0, 1) * 255).to(torch.uint8).numpy(),
                reference=held.bank.reference[index].numpy(),
                predicted=predicted,
            )
        )

    def _loss(self, stages: Sequence[Tensor], labels: Tensor) -> Tensor:
        if len(stages) == 1 and self.setup.plan.architecture.head != "samed":
            return autosam_loss(stages[0], labels)
        return 2.0 * hsam_loss(
            stages, labels, last_weight=LAST_STAGE_WEIGHT, dice_weight=DICE_WEIGHT, smoothing=TEACHING_SMOOTHING
        )

    def _is_time_to_look(self) -> bool:
        """With epochs at steps that do not depend on interruptions, with minutes at a steady pace."""
        if self.learner.steps == 0 or self._has_looked():
            return False
        if self.budget.minutes is None:
            total = self.steps_per_epoch * (self.budget.epochs or 1)
            return self.learner.steps % max(self.steps_per_epoch, total // LOOKS) == 0
        pause = max(60.0 * self.budget.minutes / LOOKS, self.look_seconds / _VALIDATION_SHARE)
        return self.budget.seconds >= self.looked_at + pause

    def _has_looked(self) -> bool:
        """Whether the last look was at the present step."""
        return bool(self.learner.history) and self.learner.history[-1].step == self.learner.steps

    def _no_more_progress(self) -> bool:
        if not self.setup.held or self.budget.fraction < 0.5:
            return False
        looks_since = sum(1 for item in self.learner.history if item.step > self.learner.best_step)
        return looks_since >= PATIENCE

    def _batches(self) -> Batches:
        network, plan, draw = self.learner.network, self.setup.plan, self.setup.draw
        if plan.adaptation == FULL:
            return LiveBatches(network.to(memory_format=torch.channels_last), draw, self.device)

        def tell(done: int, total: int) -> None:
            self.cancel.raise_if_cancelled()
            self._tell("Encoding the slices", f"{done} of {total}")

        return CachedBatches(
            SplitNetwork(network.eval(), plan.adaptation),
            draw,
            self.device,
            torch.Generator().manual_seed(self.request.seed + 1),
            capacity_bytes=self.request.cache_bytes,
            parent=self.request.cache_folder,
            enough=self._has_enough_views,
            progress=tell,
        )

    def _has_enough_views(self, views: int) -> bool:
        """With epochs no more views than epochs, with minutes as many as leave most of the time for learning."""
        if self.budget.minutes is None:
            return views >= (self.budget.epochs or 1)
        return self.budget.fraction * (views + 1) / views > ENCODING_SHARE

    def _read(self, files: Sequence, given: Sequence[Case] | None) -> list[Case]:
        if given is not None:
            found = list(given)
        else:
            found = []
            for item in files:
                self.cancel.raise_if_cancelled()
                found.append(read_case(item.image, item.labels, names=self.request.names or None))
        for case in found:
            self._note(case.notes)
        return found

    def _bank(self, case: Case, plan: TeachPlan) -> SliceBank:
        self.cancel.raise_if_cancelled()
        return build_slice_bank(
            case, slices=plan.slices, intensity=plan.intensity, image_size=plan.architecture.encoder.image_size
        )

    def _validation_sets(self, banks: tuple[SliceBank, ...], given: tuple[SliceBank, ...]) -> tuple[ValidationSet, ...]:
        if given:
            return tuple(whole_case(bank) for bank in given)
        held = tuple(item for item in (hold_out_blocks(bank) for bank in banks) if item is not None)
        if held:
            self._note(["Validated on held-out slices of the same scan: the Dice says little about other scans."])
        else:
            self._note(["Too few labelled slices to hold some out: nothing was validated, the last state is kept."])
        return held

    def _sampler(
        self, banks: tuple[SliceBank, ...], held: tuple[ValidationSet, ...], num_classes: int
    ) -> BalancedSampler:
        excluded = [frozenset(index for item in held if item.bank is bank for index in item.slices) for bank in banks]
        return BalancedSampler(banks, num_classes=num_classes, excluded=excluded)

    def _save(self) -> None:
        save_state(
            state_path(self.request.output),
            {"learner": self.learner.state(), "seconds": self.budget.seconds, "facts": self._facts()},
        )

    def _resume(self) -> None:
        path = state_path(self.request.output)
        if not self.request.resume:
            return
        if not path.is_file():
            self._note(["There was no interrupted training of this model to resume; it started anew."])
            return
        state = load_state(path)
        if state["facts"] != self._facts():
            raise RequestError(
                "The interrupted training was started with other scans, labels or options. Start it with the same "
                f"ones, or delete {path.name} to start anew."
            )
        self.learner.resume(state["learner"])
        self.budget.resume(state["seconds"], self.learner.steps)
        self.looked_at = self.budget.seconds
        self._note([f"Resumed at step {self.learner.steps}."])

    def _facts(self) -> dict:
        """What must be the same for a training to be resumed."""
        return {
            "cases": [case.hashes for case in self.setup.training],
            "labels": [label.name for label in self.setup.labels],
            "architecture": self.setup.plan.architecture.to_json(),
            "adaptation": self.setup.plan.adaptation,
            "seed": self.request.seed,
            "batch_size": self.request.batch_size,
        }

    def _after_cancel(self, saver: PeriodicSaver) -> None:
        saver.now()
        if self.learner.best is None:
            raise CancelledError("Cancelled before there was anything to keep.")
        self.stopped = "cancelled"

    def _after_bad_loss(self, error: HSAMSegmentError) -> None:
        if self.learner.best is None:
            raise TrainingError(str(error)) from error
        self.stopped = "loss not a number"
        self._note([f"{error} The best state before that is kept."])

    def _tell(self, stage: str, detail: str = "") -> None:
        self.progress(Progress(self.budget.fraction, stage, detail, self.budget.eta_seconds))

    def _note(self, sentences: Sequence[str]) -> None:
        self.notes += [sentence for sentence in sentences if sentence not in self.notes]
