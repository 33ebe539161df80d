"""The state of one fine-tuning in progress: preparing, saving and resuming it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

from HSAMSegmentLib.errors import CancelledError, RequestError
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.runtime.atomic_files import refuse_existing
from HSAMSegmentLib.runtime.devices import choose_device
from HSAMSegmentLib.runtime.progress import CancelToken, Progress, ProgressCallback, interruptible
from HSAMSegmentLib.training import ranks
from HSAMSegmentLib.training.data.augment import AugmentRule
from HSAMSegmentLib.training.data.batches import Batches
from HSAMSegmentLib.training.data.cases import Case
from HSAMSegmentLib.training.data.slice_bank import ArrayStore, SliceBank
from HSAMSegmentLib.training.features.adaptation import set_trainable
from HSAMSegmentLib.training.loop.budget import Budget
from HSAMSegmentLib.training.loop.checkpointer import Checkpointer, state_path
from HSAMSegmentLib.training.loop.fit import CancellableComputation
from HSAMSegmentLib.training.loop.losses import DICE_SMOOTHING, autosam_loss, hsam_loss
from HSAMSegmentLib.training.loop.optimizer import hsam_last_stage_weight
from HSAMSegmentLib.training.loop.trainer import BatchSizeProbe, Objective, Trainer
from HSAMSegmentLib.training.loop.validator import Validator
from HSAMSegmentLib.training.recipe import Recipe
from HSAMSegmentLib.training.request import SCHEDULES, FinetuneEvents, FinetuneRequest
from HSAMSegmentLib.training.second_plane import PlaneComparison, SecondPlane
from HSAMSegmentLib.training.training_setup import TrainingSetup, slice_bank_of

Result = TypeVar("Result")

DICE_WEIGHT = 0.5
_SLOW_SECONDS = 0.3
_WRITTEN_PER_SECOND = 50e6
_PLOT_SECONDS = 1.5


class FinetuneState:
    """One fine-tuning in progress and its shared parts.

    Attributes:
        request: the request.
        setup: data, recipe, initialized network.
        trainer: weights, optimizer, random draws, history.
        validator: when to validate, and on what.
        checkpointer: saves the state that `resume` continues from.
        budget: minutes or epochs.
        second_plane: a second network for another plane and its trainer; None without one.
        comparison: whether the second network helps; None until known.
        notes: sentences for the result; `advice` holds those that matter to users of the model.
    """

    def __init__(
        self, request: FinetuneRequest, progress: ProgressCallback, cancel: CancelToken, budget: Budget | None = None
    ) -> None:
        """Check the request; `attach` adds the rest after the data are read.

        Raises:
            OutputError: if an output exists and may not be replaced.
            RequestError: if options are unknown or mutually exclusive.
        """
        for path in (request.output, request.report, request.plot):
            if path is not None:
                refuse_existing(path, request.overwrite)
        if request.schedule not in ("", *SCHEDULES):
            raise RequestError(f"The schedule '{request.schedule}' is unknown; choose {', '.join(SCHEDULES)}.")
        if ranks.world_size() > 1 and request.epochs is None:
            raise RequestError("Several processes keep in step by epochs: give the number of epochs, not minutes.")
        self.request, self.progress, self.cancel = request, progress, cancel
        self.store = None if request.stream_folder is None else ArrayStore(request.stream_folder)
        self.budget = budget or Budget(minutes=request.minutes, epochs=request.epochs)
        self.device = torch.device(choose_device(request.device).name)
        self.notes: list[str] = []
        self.advice: list[str] = []
        self.second_plane: SecondPlane | None = None
        self.comparison: PlaneComparison | None = None
        self.first_plane_fraction = 1.0

    def attach(self, setup: TrainingSetup, events: FinetuneEvents) -> None:
        """Create trainer, validator, and checkpointer."""
        request, recipe = self.request, setup.recipe
        self.setup = setup
        network = setup.initial.network.to(self.device)
        set_trainable(network, recipe.adaptation)
        self.trainer = Trainer(
            network,
            rate=recipe.rate,
            encoder_share=recipe.encoder_share,
            seed=request.seed,
            device=self.device,
            schedule=recipe.schedule,
            steps_per_epoch=setup.steps_per_epoch,
        )
        self.trainer.guard = self.guard
        self.budget.set_steps_per_epoch(setup.steps_per_epoch)
        self.budget.writing_seconds += self._writing_seconds()
        # Several ranks check for a cancel between steps only: the others would wait for one that left a validation.
        inner_cancel = self.cancel if ranks.world_size() == 1 else CancelToken()
        self.validator = Validator(setup, self.trainer, self.budget, events, inner_cancel)
        self.checkpointer = Checkpointer(state_path(request.output), self.state, every_seconds=request.save_seconds)

    @property
    def steps(self) -> int:
        """Optimizer steps of both networks."""
        return self.trainer.steps + (self.second_plane.trainer.steps if self.second_plane is not None else 0)

    @property
    def has_second_plane(self) -> bool:
        """Whether a second network is trained after the first one."""
        return bool(self.setup.recipe.second_plane and self.setup.validation_sets)

    def stepper(self, trainer: Trainer, batches: Batches, stage: str) -> Callable[[], None]:
        """Return a function that takes one step, saves from time to time, and reports progress.

        Args:
            trainer: trainer of either network.
            batches: its batches.
            stage: stage name in progress reports.
        """
        probe = BatchSizeProbe(self.budget, batches)
        objective = Objective(batches, self.loss)

        def step() -> None:
            if ranks.any_rank(self.cancel.is_cancelled):
                raise CancelledError("Cancelled.")
            began = time.monotonic()
            trainer.step([objective], self.budget.fraction)
            self.budget.advance(time.monotonic() - began)
            self.note(probe.after_step())
            self.checkpointer.tick()
            self.report(stage, f"step {self.steps}, loss {trainer.loss:.3f}")

        return step

    def loss(self, stages: Sequence[Tensor], labels: Tensor) -> Tensor:
        """The loss of the head at the current step."""
        if len(stages) == 1 and self.setup.recipe.architecture.head != "samed":
            return autosam_loss(stages[0], labels)
        return 2.0 * hsam_loss(
            stages,
            labels,
            last_weight=hsam_last_stage_weight(self.steps / self.setup.steps_per_epoch),
            dice_weight=DICE_WEIGHT,
            smoothing=DICE_SMOOTHING,
        )

    def augmentation_of(self, trainer: Trainer) -> Callable[[], AugmentRule]:
        """Return a function that returns the augmentation at the trainer's current step."""
        return lambda: self.setup.recipe.augment_at(trainer.steps)

    def start_second_plane(self, first: SegmentationNetwork) -> SecondPlane:
        """Extract the slices of the second plane, and copy the first network."""
        setup, request = self.setup, self.request
        self.report("Cutting the slices")
        plane = self.interruptible(
            lambda: SecondPlane(
                setup.recipe.second_plane, setup, first, seed=request.seed, batch_size=request.batch_size
            )
        )
        plane.trainer.guard = self.guard
        return plane

    def guard(self) -> AbstractContextManager[Any]:
        """Check for a cancel in every operation of a slow step; quick steps are checked in between.

        Several ranks check between steps only, since the others would wait for one that left a step.
        """
        if ranks.world_size() > 1:
            return nullcontext()
        is_slow = self.budget.step_seconds > _SLOW_SECONDS or self.budget.step_seconds == 0.0
        return CancellableComputation(self.cancel) if is_slow else nullcontext()

    def interruptible(self, work: Callable[[], Result]) -> Result:
        """Run work that cannot check for a cancel itself; a cancel abandons it."""
        return interruptible(work, self.cancel)

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs."""
        return {
            "learner": self.trainer.state(),
            "other": None if self.second_plane is None else self.second_plane.trainer.state(),
            "seconds": self.budget.seconds,
            "look_seconds": self.budget.validation_seconds,
            "first_part": self.first_plane_fraction,
            "facts": self.setup.facts(self.request),
            "pixel_spacing_mm": self.setup.recipe.slices.pixel_spacing_mm,
            "steps_per_epoch": self.setup.steps_per_epoch,
        }

    def resume(self) -> None:
        """Continue from the saved state, if there is one and the request allows it.

        Raises:
            RequestError: if the state belongs to other scans, labels or options.
            CheckpointError: if its file is damaged.
        """
        if not self.request.resume:
            return
        state = self.checkpointer.load()
        if state is None:
            self.note(["There was no interrupted training of this model to resume: a new one was started."])
            return
        if state["facts"] != self.setup.facts(self.request):
            raise RequestError(
                "The interrupted training used other scans, labels or options. Start it with the same ones, or delete "
                f"{self.checkpointer.path.name} to start a new one."
            )
        self.trainer.resume(state["learner"])
        if state["other"] is not None:
            self.second_plane = self.start_second_plane(self.trainer.load_best())
            self.second_plane.trainer.resume(state["other"])
        self.budget.resume(state["seconds"], self._steps_at_this_size(state))
        self.budget.validation_seconds, self.first_plane_fraction = state["look_seconds"], state["first_part"]
        self.validator.resume()
        self.note([f"Resumed at step {self.steps}."])

    def _steps_at_this_size(self, state: dict[str, Any]) -> int:
        """Steps of earlier runs, converted to the current number of ranks, which changes the slices per step."""
        now = self.setup.steps_per_epoch
        before = state.get("steps_per_epoch", now)
        return self.steps if before == now else round(self.steps * now / before)

    def stored(self, cases: Iterable[Case]) -> list[Case]:
        """The same cases, stored in files if the request says so."""
        return list(cases) if self.store is None else [self.store.case(case) for case in cases]

    def bank_of(self, case: Case, recipe: Recipe) -> SliceBank:
        """The slices of a case, stored in files if the request says so."""
        bank = self.interruptible(lambda: slice_bank_of(case, recipe))
        return bank if self.store is None else self.store.bank(bank)

    def close(self) -> None:
        """Delete the files that only the training needs."""
        if self.store is not None:
            self.store.close()

    def report(self, stage: str, detail: str = "") -> None:
        """Report progress."""
        self.progress(Progress(self.budget.fraction, stage, detail, self.budget.eta_seconds))

    def note(self, sentences: Sequence[str]) -> None:
        """Add sentences to the notes."""
        self.notes += [sentence for sentence in sentences if sentence not in self.notes]

    def advise(self, sentences: Sequence[str]) -> None:
        """Add sentences to the notes and to the advice for users of the model."""
        self.note(sentences)
        self.advice += [sentence for sentence in sentences if sentence not in self.advice]

    def _writing_seconds(self) -> float:
        """Estimated time to write the model in half precision and the plot."""
        trained = sum(parameter.numel() for parameter in self.trainer.network.parameters() if parameter.requires_grad)
        return float(2.0 * trained / _WRITTEN_PER_SECOND + (_PLOT_SECONDS if self.request.plot else 0.0))
