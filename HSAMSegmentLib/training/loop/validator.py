"""Validation: Dice of validation slices, when to validate, which weights to keep, and when to stop early."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from HSAMSegmentLib.errors import TrainingError
from HSAMSegmentLib.inference.test_time_augmentation import mean_over_augmentations
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.preprocess.rules import PredictionRule
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.runtime.tensors import to_array
from HSAMSegmentLib.training import ranks
from HSAMSegmentLib.training.data.sampling import SAME_SCAN, ValidationSet, thinned
from HSAMSegmentLib.training.data.slice_bank import SliceBank
from HSAMSegmentLib.training.features.cached_features import CachedFeatures
from HSAMSegmentLib.training.loop.budget import Budget
from HSAMSegmentLib.training.loop.fit import CancellableComputation
from HSAMSegmentLib.training.loop.trainer import Trainer
from HSAMSegmentLib.training.request import FinetuneEvents, ValidationMetrics, ValidationPreview
from HSAMSegmentLib.training.training_setup import TrainingSetup

StagesOf = Callable[[SliceBank, Sequence[int]], Sequence[torch.Tensor]]

_BATCH = 4

VALIDATIONS = 20
PATIENCE = 7
VALIDATION_SHARE = 0.05
"""Fraction of a budget in minutes that one validation may take if slices are encoded anew each time."""
SAME_SCAN_MARGIN = 0.02
_ALL_VALIDATIONS_SHARE = 0.15
_LEAST_FRACTION = 0.5
_QUICK_SECONDS = 1.0


@dataclass(frozen=True)
class ValidationResult:
    """Dice on the validation slices.

    Attributes:
        dice: for each label value 1..K, the mean over the validation sets in which it occurs (in the reference or in
            the prediction); NaN if it occurs nowhere.
        per_set: for each validation set, the Dice per label; NaN if it occurs in neither.
    """

    dice: tuple[float, ...]
    per_set: tuple[tuple[float, ...], ...]

    @property
    def mean(self) -> float:
        """Mean over the labels that occur; 0 if there are none."""
        known = [value for value in self.dice if not np.isnan(value)]
        return float(np.mean(known)) if known else 0.0


def predict_slices(
    network: SegmentationNetwork,
    bank: SliceBank,
    slices: Sequence[int],
    *,
    device: torch.device | str = "cpu",
    between_batches: Callable[[], None] = lambda: None,
    stages_of: StagesOf | None = None,
    rule: PredictionRule | None = None,
) -> np.ndarray:
    """Predict labels uint8 [n, rows, cols] of slices as in inference.

    Args:
        network: in evaluation mode.
        bank: bank of the slices.
        slices: their indices.
        device: device of the network.
        between_batches: called before each batch; may raise to stop.
        stages_of: returns the logits of all stages for some slices, instead of the network, without test-time
            augmentation.
        rule: prediction rule; None for the mean of all stages in one plain view. Slices are predicted independently,
            since they need not be neighbors.
    """
    rule = rule or PredictionRule()
    found = []
    for start in range(0, len(slices), _BATCH):
        between_batches()
        group = slices[start : start + _BATCH]
        with torch.inference_mode():
            stages = stages_of(bank, group) if stages_of else _stages(network, bank.all_tiles(group).to(device), rule)
            used = stages[-1:] if rule.stages == "last" else stages
            logits = torch.as_tensor(sum(bank.framing.logits(stage) for stage in used))
        found.append(to_array(logits.argmax(dim=1).to(torch.uint8)))
    return np.concatenate(found)


def _stages(network: SegmentationNetwork, images: torch.Tensor, rule: PredictionRule) -> list[torch.Tensor]:
    return mean_over_augmentations(lambda view: network(view).stages, images, rule.views)


def validate(
    network: SegmentationNetwork,
    sets: Sequence[ValidationSet],
    *,
    num_classes: int,
    device: torch.device | str = "cpu",
    step: int = 1,
    between_batches: Callable[[], None] = lambda: None,
    stages_of: StagesOf | None = None,
    rule: PredictionRule | None = None,
) -> ValidationResult:
    """Compute Dice per label over all slices of each set; several ranks share the slices.

    Args:
        network: in evaluation mode.
        sets: the validation sets.
        num_classes: foreground classes K.
        device: device of the network.
        step: use only every n-th slice, for a quick validation on thin slices.
        between_batches: called before each batch; may raise to stop.
        stages_of: see `predict_slices`.
        rule: see `predict_slices`.

    Raises:
        TrainingError: if there is nothing to validate on.
    """
    if not sets:
        raise TrainingError("There is nothing to validate on.")
    counts = torch.zeros(len(sets), num_classes, 2, dtype=torch.int64)
    for number, item in enumerate(sets):
        slices = item.slices[::step][ranks.rank() :: ranks.world_size()]
        if not slices:
            continue
        predicted = predict_slices(
            network, item.bank, slices, device=device, between_batches=between_batches, stages_of=stages_of, rule=rule
        )
        reference = to_array(item.bank.reference[list(slices)])
        for value in range(1, num_classes + 1):
            counts[number, value - 1] = _overlap_and_size(predicted == value, reference == value)
    per_set = [tuple(_dice(*pair) for pair in row) for row in ranks.sum_counts(counts).tolist()]
    return ValidationResult(tuple(_mean(column) for column in zip(*per_set)), tuple(per_set))


def _overlap_and_size(first: np.ndarray, second: np.ndarray) -> torch.Tensor:
    sizes = np.count_nonzero(first) + np.count_nonzero(second)
    return torch.tensor([np.count_nonzero(first & second), sizes])


def _dice(overlap: int, size: int) -> float:
    return 2.0 * overlap / size if size else float("nan")


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


class Validator:
    """Validates the averaged weights at regular intervals and keeps the best.

    All validations of a training use the same slices. If the starting model knows one of the labels, it is validated
    before the first step, so the result is never worse than the start.
    """

    def __init__(
        self, setup: TrainingSetup, trainer: Trainer, budget: Budget, events: FinetuneEvents, cancel: CancelToken
    ) -> None:
        self._setup, self._trainer, self._budget = setup, trainer, budget
        self._events, self._cancel = events, cancel
        self._steps_per_epoch = setup.steps_per_epoch
        self._features: CachedFeatures | None = None
        self.sets: tuple[ValidationSet, ...] = setup.validation_sets
        self._validated_at = self._validation_seconds = 0.0

    def use_cache(self, features: CachedFeatures) -> None:
        """Decode cached features of the validation slices from now on, instead of encoding them each time."""
        self._features, self.sets = features, features.validation_sets

    @property
    def encoding_seconds(self) -> float | None:
        """Measured seconds of a frozen encoder per view; None if unknown."""
        return None if self._features is None else self._features.encoding_seconds

    def resume(self) -> None:
        """Continue with the slices of earlier validations; the interval until the next one starts now."""
        self._validated_at = self._budget.seconds
        slices = self._trainer.validated_slices
        if slices is not None:
            self.sets = tuple(replace(item, slices=tuple(kept)) for item, kept in zip(self.sets, slices))

    def begin(self) -> bool:
        """Choose the slices, and validate the starting model if it knows one of the labels.

        Returns:
            Whether only some of the slices are used, because the budget in minutes is short for this network.
        """
        if not self.sets or self.are_slices_fixed:
            return False
        is_part = self._budget.minutes is not None and self.thin(self._seconds_per_input())
        if self._setup.initial.facts["common_labels"] and not self._trainer.steps:
            self.validate()
        return is_part

    @property
    def are_slices_fixed(self) -> bool:
        """Whether there was a validation, after which the slices must not change."""
        return self._trainer.validated_slices is not None

    def thin(self, seconds_per_input: float) -> bool:
        """With minutes, drop slices until a validation is short; return whether any were dropped.

        The slices are fixed after the first validation, since Dice on other slices could not be compared.
        """
        if self._budget.minutes is None or self.are_slices_fixed:
            return False
        most = VALIDATION_SHARE * 60.0 * self._budget.minutes / max(seconds_per_input, 1e-6)
        before, self.sets = self.sets, thinned(self.sets, most)
        return sum(len(item.slices) for item in self.sets) < sum(len(item.slices) for item in before)

    @property
    def is_due(self) -> bool:
        """With epochs, at steps that do not depend on interruptions; with minutes, at regular intervals."""
        if self._trainer.steps == 0 or self.is_up_to_date:
            return False
        if self._budget.minutes is None:
            total = self._steps_per_epoch * (self._budget.epochs or 1)
            return self._trainer.steps % max(self._steps_per_epoch, total // VALIDATIONS) == 0
        pause = max(60.0 * self._budget.minutes / VALIDATIONS, self._validation_seconds / _ALL_VALIDATIONS_SHARE)
        return self._budget.seconds >= self._validated_at + pause

    @property
    def is_up_to_date(self) -> bool:
        """Whether the last validation was at the current step."""
        return bool(self._trainer.history) and self._trainer.history[-1].step == self._trainer.steps

    @property
    def has_converged(self) -> bool:
        """Whether many validations in a row brought no improvement; never in the first half of the budget."""
        if not self.sets or self._budget.fraction < _LEAST_FRACTION:
            return False
        return sum(1 for item in self._trainer.history if item.step > self._trainer.best_step) >= PATIENCE

    def validate(self) -> None:
        """Validate the averaged weights, keep them if they are the best, and emit the metrics."""
        started = self._budget.seconds
        self._trainer.validated_slices = [list(item.slices) for item in self.sets]
        dice, mean = self._dice() if self.sets else ({}, None)
        kept = self._trainer.keep_if_best(mean, self._margin)
        if self.sets and kept:
            self._preview()
        metrics = ValidationMetrics(
            step=self._trainer.steps,
            epoch=self._trainer.steps / self._steps_per_epoch,
            loss=self._trainer.loss,
            dice=dice,
            kept=kept,
            eta_seconds=self._budget.eta_seconds,
        )
        self._trainer.history.append(metrics)
        self._events(metrics)
        self._validated_at = self._budget.seconds
        self._validation_seconds = self._validated_at - started
        self._budget.validation_seconds = max(self._budget.validation_seconds, self._validation_seconds)

    def _seconds_per_input(self) -> float:
        """Seconds of the network per input; the faster of two passes, since the first one is slower."""
        item, seconds = self.sets[0], float("inf")
        for _ in range(2):
            began = time.monotonic()
            with CancellableComputation(self._cancel):
                predict_slices(
                    self._trainer.average.network,
                    item.bank,
                    item.slices[:1],
                    device=self._trainer.device,
                    stages_of=self._stages_of,
                )
            seconds = min(seconds, time.monotonic() - began)
            if seconds > _QUICK_SECONDS:
                break
        return seconds / item.bank.tile_count

    def _dice(self) -> tuple[dict[str, float], float]:
        with CancellableComputation(self._cancel):
            result = validate(
                self._trainer.average.network,
                self.sets,
                num_classes=len(self._setup.labels),
                device=self._trainer.device,
                between_batches=self._cancel.raise_if_cancelled,
                stages_of=self._stages_of,
                rule=self._rule,
            )
        named = zip((label.name for label in self._setup.labels), result.dice)
        return {name: value for name, value in named if value == value}, result.mean

    @property
    def _margin(self) -> float:
        """How far a later state may fall below the best Dice and still be kept.

        While the augmentation widens, later weights generalize better to other scans, which Dice on slices of the same
        scan does not show.
        """
        widens = self._setup.recipe.augment_first is not None
        return SAME_SCAN_MARGIN if widens and all(item.source == SAME_SCAN for item in self.sets) else 0.0

    @property
    def _rule(self) -> PredictionRule:
        """As in inference, but without test-time augmentation, to keep validations short."""
        return PredictionRule(self._setup.recipe.prediction.stages)

    @property
    def _stages_of(self) -> StagesOf | None:
        features = self._features
        if features is None:
            return None
        return lambda bank, slices: features.stages(self._trainer.average.network, bank, slices, self._trainer.device)

    def _preview(self) -> None:
        """Emit the validation slice with the most labeled pixels."""
        item = self.sets[0]
        filled = (item.bank.reference[list(item.slices)] != 0).flatten(1).sum(dim=1)
        index = item.slices[int(filled.argmax())]
        with CancellableComputation(self._cancel):
            predicted = predict_slices(
                self._trainer.average.network,
                item.bank,
                [index],
                device=self._trainer.device,
                stages_of=self._stages_of,
                rule=self._rule,
            )[0]
        image = item.bank.framing.logits(item.bank.all_tiles([index])[:, 1:2])[0, 0]
        self._events(
            ValidationPreview(
                case=item.bank.name,
                slice_index=index,
                image=(image.clamp(0, 1) * 255).to(torch.uint8).numpy(),
                reference=item.bank.reference[index].numpy(),
                predicted=predicted,
            )
        )
