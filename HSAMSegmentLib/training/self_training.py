"""Scans without labels: halfway, the network labels them itself and learns from what it is sure of.

Self-training (Lee, ICML 2013 workshop) with the averaged weights as the teacher. Each label is looked up under views
that differ more than those it was made from, so that the network learns to say the same to all of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.inference.arrays import to_array, to_tensor
from HSAMSegmentLib.inference.options import PostprocessOptions
from HSAMSegmentLib.inference.postprocess import postprocess
from HSAMSegmentLib.inference.views import mean_over_views
from HSAMSegmentLib.training.adaptation import FULL
from HSAMSegmentLib.training.batches import LiveBatches
from HSAMSegmentLib.training.budget import Budget
from HSAMSegmentLib.training.cases import Case, array_hash
from HSAMSegmentLib.training.learner import Learner
from HSAMSegmentLib.training.losses import UNLABELLED
from HSAMSegmentLib.training.sampling import BalancedSampler, MixedSampler
from HSAMSegmentLib.training.slice_bank import SliceBank
from HSAMSegmentLib.volumes.labels import LabelSet
from HSAMSegmentLib.volumes.volume import Volume

if TYPE_CHECKING:
    from HSAMSegmentLib.training.plan import TeachPlan
    from HSAMSegmentLib.training.setup import TeachSetup

LABEL_AT = 0.5
"""Done part of the training at which the scans are labelled."""
SURE = 0.6
LABELING_SHARE = 0.1
"""Part of a budget in minutes that labelling may take; fewer slices are labelled where all would take longer."""
_BATCH = 4
_ONE_PIECE = PostprocessOptions(largest_piece=True, fill_holes=False, minimum_ml=0.0)


def unlabeled_case(volume: Volume, labels: LabelSet) -> Case:
    """A scan that nobody labelled, as a case that is all background until it is labelled."""
    empty = np.zeros(volume.array.shape, dtype=np.uint8)
    return Case(volume, empty, labels, None, 0, volume.notes, {"volume": array_hash(volume.array)})


def without_known(
    volumes: Sequence[Volume], training: Sequence[Case], validation: Sequence[Case]
) -> tuple[list[Volume], tuple[str, ...]]:
    """Leave out scans that are taught or validated on, and say so.

    A validation scan that the network has learned from, even by its own labels, is no longer one that it never saw.
    """
    kept, notes = [], []
    for volume in volumes:
        found = array_hash(volume.array)
        if any(case.hashes["volume"] == found for case in (*training, *validation)):
            notes.append(f"'{volume.name}' is also given with labels: as a scan without labels it was left out.")
        else:
            kept.append(volume)
    return kept, tuple(notes)


def require_live(volumes: Sequence[Volume], plan: TeachPlan) -> None:
    """Refuse scans without labels where kept features of a fixed set of views are learned from.

    Raises:
        RequestError: if there are such scans and the encoder does not learn.
    """
    if volumes and plan.adaptation != FULL:
        raise RequestError(
            "Scans without labels are of use only where the whole network learns. Leave them out, or teach the compact "
            "encoder."
        )


class SelfTraining:
    """The scans without labels, and what the network made of them."""

    def __init__(self, banks: Sequence[SliceBank], setup: TeachSetup, learner: Learner, budget: Budget) -> None:
        """
        Args:
            banks: slices of the scans; none for a training with labelled scans alone.
            setup: labels, plan and the labelled scans.
            learner: whose averaged weights label.
            budget: how much of the training is done.
        """
        self.banks = tuple(banks)
        self._setup, self._learner, self._budget = setup, learner, budget
        self._every = 0
        self._teacher: dict[str, Tensor] | None = None

    @property
    def is_due(self) -> bool:
        """Whether the scans are to be labelled now."""
        return bool(self.banks) and self._teacher is None and self._budget.fraction >= LABEL_AT

    def state(self) -> dict | None:
        """What `resume` needs, None before anything was labelled."""
        return None if self._teacher is None else {"teacher": self._teacher, "every": self._every}

    def resume(self, state: dict | None) -> None:
        """Take over what `state` gave; `begin` then labels as before the interruption."""
        if state is not None:
            self._teacher, self._every = state["teacher"], state["every"]

    def begin(self, batches: LiveBatches, between_batches: Callable[[], None]) -> None:
        """After an interruption, label as before it; the learner keeps its weights."""
        if self._teacher is None:
            return
        network = self._learner.average.network
        present = {name: value.clone() for name, value in network.state_dict().items() if name in self._teacher}
        network.load_state_dict(self._teacher, strict=False)
        try:
            self._label_and_add(batches, between_batches)
        finally:
            network.load_state_dict(present, strict=False)

    def label(self, batches: LiveBatches, between_batches: Callable[[], None]) -> str:
        """Label the scans and learn from them, too, from now on.

        Args:
            batches: where steps get their views from.
            between_batches: called before each batch; may raise to stop, and nothing has changed then.

        Returns:
            A sentence on it.
        """
        seconds = None if self._budget.minutes is None else LABELING_SHARE * 60.0 * self._budget.minutes
        self._every = self._spacing(seconds)
        sure = self._label_and_add(batches, between_batches)
        self._teacher = self._learner.averaged_weights()
        which = "all slices" if self._every == 1 else f"one of {self._every} slices"
        return (
            f"After {self._learner.steps} steps the network labelled {which} of {len(self.banks)} scan(s) itself and "
            f"learned from {100 * sure:.0f} % of their pixels, of which it was sure."
        )

    def _label_and_add(self, batches: LiveBatches, between_batches: Callable[[], None]) -> float:
        """Returns the part of the pixels that the network is sure of."""
        own = tuple(self._labeled_bank(bank, between_batches) for bank in self.banks)
        draw = self._setup.draw
        batches.use(*mixed(draw.banks, draw.sampler, own, len(self._setup.labels)))
        looked_at = [bank.labels[to_tensor(bank.labelled.astype(np.uint8)).bool()] for bank in own]
        return float(np.mean([float((labels != UNLABELLED).float().mean()) for labels in looked_at]))

    def _spacing(self, seconds: float | None) -> int:
        """Take every n-th slice so that labelling is done in time."""
        if seconds is None:
            return 1
        began = time.monotonic()
        self._probabilities(self.banks[0], [0])
        needed = (time.monotonic() - began) * sum(len(bank) for bank in self.banks)
        return max(1, math.ceil(needed / seconds))

    def _labeled_bank(self, bank: SliceBank, between_batches: Callable[[], None]) -> SliceBank:
        slices = list(range(0, len(bank), self._every))
        parts = []
        for start in range(0, len(slices), _BATCH):
            between_batches()
            parts.append(self._probabilities(bank, slices[start : start + _BATCH]).max(dim=1))
        sureness = np.concatenate([to_array(part.values) for part in parts])
        found = np.concatenate([to_array(part.indices.to(torch.uint8)) for part in parts])
        one_piece = found.copy()
        postprocess(one_piece, self._setup.labels, voxel_volume_ml=1.0, options=_ONE_PIECE)
        one_piece[(sureness < SURE) | (one_piece != found)] = UNLABELLED
        targets = torch.full_like(bank.labels, UNLABELLED)
        targets[slices] = bank.framing.labels(to_tensor(one_piece))
        return replace(bank, labels=targets, labelled=np.isin(np.arange(len(bank)), slices))

    def _probabilities(self, bank: SliceBank, slices: Sequence[int]) -> Tensor:
        """[n, K + 1, rows, cols]."""
        network, rule = self._learner.average.network, self._setup.plan.prediction
        with torch.inference_mode():
            images = bank.all_tiles(slices).to(self._learner.device)
            stages = mean_over_views(lambda view: network(view).stages, images, rule.views)
            read = stages[-1:] if rule.stages == "last" else stages
            return sum(bank.framing.logits(stage).float() for stage in read).softmax(dim=1).cpu()


def mixed(
    drawn: Sequence[SliceBank], sampler: BalancedSampler, own: Sequence[SliceBank], num_classes: int
) -> tuple[tuple[SliceBank, ...], MixedSampler]:
    """Banks and sampler over labelled scans and those that the network labelled.

    Args:
        drawn: the labelled scans.
        sampler: over these.
        own: the others, with the network's labels.
        num_classes: foreground classes K.
    """
    banks = (*drawn, *own)
    left_out = [frozenset(range(len(bank))) for bank in drawn] + [frozenset()] * len(own)
    return banks, MixedSampler(sampler, BalancedSampler(banks, num_classes=num_classes, excluded=left_out))
