"""Looks at a training: when to validate, what is told then, and which state is kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from HSAMSegmentLib.preprocess.rules import PredictionRule
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.training.features.cached_features import KeptFeatures, thinned
from HSAMSegmentLib.training.loop.budget import Budget
from HSAMSegmentLib.training.loop.interruption import CancellableComputation
from HSAMSegmentLib.training.loop.trainer import Learner
from HSAMSegmentLib.training.loop.validation import SAME_SCAN, StagesOf, ValidationSet, predict_slices, validate
from HSAMSegmentLib.training.request import TeachEvents, TeachMetrics, TeachPreview

if TYPE_CHECKING:
    from HSAMSegmentLib.training.setup import TeachSetup

LOOKS = 20
PATIENCE = 7
LOOK_SHARE = 0.05
"""Part of a budget in minutes that one look may take where the validation slices are encoded anew each time."""
SAME_SCAN_MARGIN = 0.02
_ALL_LOOKS_SHARE = 0.15
_LEAST_FRACTION = 0.5
_QUICK_SECONDS = 1.0


class Looks:
    """Validates the averaged weights at a steady pace and keeps the best.

    All looks of a training are taken on the same slices, the first one before the first step where the starting model
    knows an organ: what is kept is then never worse than the start.
    """

    def __init__(
        self, setup: TeachSetup, learner: Learner, budget: Budget, events: TeachEvents, cancel: CancelToken
    ) -> None:
        self._setup, self._learner, self._budget = setup, learner, budget
        self._events, self._cancel = events, cancel
        self._steps_per_epoch = setup.steps_per_epoch
        self._kept: KeptFeatures | None = None
        self.held: tuple[ValidationSet, ...] = setup.held
        self._looked_at = self._look_seconds = 0.0

    def use_kept(self, kept: KeptFeatures) -> None:
        """Decode kept features of the validation slices from now on, instead of encoding these each time."""
        self._kept, self.held = kept, kept.held

    @property
    def encoding_seconds(self) -> float | None:
        """How long a frozen encoder took for one view, None if nobody measured it."""
        return None if self._kept is None else self._kept.encoding_seconds

    def resume(self) -> None:
        """Go on with the slices that were looked at before; count the pause to the next look from now on."""
        self._looked_at = self._budget.seconds
        if self.is_settled:
            slices = self._learner.judged_on
            self.held = tuple(replace(item, slices=tuple(kept)) for item, kept in zip(self.held, slices))

    def begin(self) -> bool:
        """Settle the slices, and look at the start of a training if it knows an organ.

        Returns:
            Whether only a part of the slices is used, because the budget in minutes is short for this network.
        """
        if not self.held or self.is_settled:
            return False
        is_part = self._budget.minutes is not None and self.thin(self._seconds_per_input())
        if self._setup.start.facts["common_labels"] and not self._learner.steps:
            self.look()
        return is_part

    @property
    def is_settled(self) -> bool:
        """Whether a look was taken, so that the slices stay the same from now on."""
        return self._learner.judged_on is not None

    def thin(self, seconds_per_input: float) -> bool:
        """With minutes, validate on as few slices as make a look short; returns whether that is fewer than before.

        After the first look the slices stay: a Dice on others could not be compared.
        """
        if self._budget.minutes is None or self.is_settled:
            return False
        most = LOOK_SHARE * 60.0 * self._budget.minutes / max(seconds_per_input, 1e-6)
        before, self.held = self.held, thinned(self.held, most)
        return sum(len(item.slices) for item in self.held) < sum(len(item.slices) for item in before)

    @property
    def is_due(self) -> bool:
        """With epochs at steps that do not depend on interruptions, with minutes at a steady pace."""
        if self._learner.steps == 0 or self.has_looked:
            return False
        if self._budget.minutes is None:
            total = self._steps_per_epoch * (self._budget.epochs or 1)
            return self._learner.steps % max(self._steps_per_epoch, total // LOOKS) == 0
        pause = max(60.0 * self._budget.minutes / LOOKS, self._look_seconds / _ALL_LOOKS_SHARE)
        return self._budget.seconds >= self._looked_at + pause

    @property
    def has_looked(self) -> bool:
        """Whether the last look was at the present step."""
        return bool(self._learner.history) and self._learner.history[-1].step == self._learner.steps

    @property
    def is_pointless_to_go_on(self) -> bool:
        """Whether many looks in a row found nothing better; never in the first half."""
        if not self.held or self._budget.fraction < _LEAST_FRACTION:
            return False
        return sum(1 for item in self._learner.history if item.step > self._learner.best_step) >= PATIENCE

    def look(self) -> None:
        """Validate the averaged weights, keep them if they are the best, and tell."""
        started = self._budget.seconds
        self._learner.judged_on = [list(item.slices) for item in self.held]
        dice, mean = self._validate() if self.held else ({}, None)
        best = self._learner.keep_if_best(mean, self._margin)
        if self.held and best:
            self._preview()
        metrics = TeachMetrics(
            step=self._learner.steps,
            epoch=self._learner.steps / self._steps_per_epoch,
            loss=self._learner.loss,
            dice=dice,
            best=best,
            eta_seconds=self._budget.eta_seconds,
        )
        self._learner.history.append(metrics)
        self._events(metrics)
        self._looked_at = self._budget.seconds
        self._look_seconds = self._looked_at - started
        self._budget.look_seconds = max(self._budget.look_seconds, self._look_seconds)

    def _seconds_per_input(self) -> float:
        """How long the network takes for one slice; the first pass of all is slower than the others."""
        item, seconds = self.held[0], float("inf")
        for _ in range(2):
            began = time.monotonic()
            with CancellableComputation(self._cancel):
                predict_slices(
                    self._learner.average.network,
                    item.bank,
                    item.slices[:1],
                    device=self._learner.device,
                    stages_of=self._stages_of,
                )
            seconds = min(seconds, time.monotonic() - began)
            if seconds > _QUICK_SECONDS:
                break
        return seconds / item.bank.tile_count

    def _validate(self) -> tuple[dict[str, float], float]:
        with CancellableComputation(self._cancel):
            result = validate(
                self._learner.average.network,
                self.held,
                num_classes=len(self._setup.labels),
                device=self._learner.device,
                between_batches=self._cancel.raise_if_cancelled,
                stages_of=self._stages_of,
                rule=self._rule,
            )
        named = zip((label.name for label in self._setup.labels), result.dice)
        return {name: value for name, value in named if value == value}, result.mean

    @property
    def _margin(self) -> float:
        """How much less Dice a later state may have and still be kept.

        While views widen, a later state knows more of what the taught scan does not show, and its other slices do not
        tell.
        """
        widens = self._setup.plan.augment_first is not None
        return SAME_SCAN_MARGIN if widens and all(item.source == SAME_SCAN for item in self.held) else 0.0

    @property
    def _rule(self) -> PredictionRule:
        """As in segmenting, but in one view: a look has to be short."""
        return PredictionRule(self._setup.plan.prediction.stages)

    @property
    def _stages_of(self) -> StagesOf | None:
        kept = self._kept
        if kept is None:
            return None
        return lambda bank, slices: kept.stages(self._learner.average.network, bank, slices, self._learner.device)

    def _preview(self) -> None:
        """The validation slice with the most labelled pixels."""
        held = self.held[0]
        filled = (held.bank.reference[list(held.slices)] != 0).flatten(1).sum(dim=1)
        index = held.slices[int(filled.argmax())]
        with CancellableComputation(self._cancel):
            predicted = predict_slices(
                self._learner.average.network,
                held.bank,
                [index],
                device=self._learner.device,
                stages_of=self._stages_of,
                rule=self._rule,
            )[0]
        image = held.bank.framing.logits(held.bank.all_tiles([index])[:, 1:2])[0, 0]
        self._events(
            TeachPreview(
                case=held.bank.name,
                slice_index=index,
                image=(image.clamp(0, 1) * 255).to(torch.uint8).numpy(),
                reference=held.bank.reference[index].numpy(),
                predicted=predicted,
            )
        )


def names_of(sets: Sequence[ValidationSet]) -> str:
    """What the Dice was measured on, in words."""
    return " and ".join(sorted({item.source for item in sets})) or "nothing"
