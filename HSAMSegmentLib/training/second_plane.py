"""A second network for slices along another plane, taught after the first one and only kept if both are better.

It begins as a copy of the first network, which knows the structures and the scanner already, so it needs a fraction of
the steps for slices that it has never looked along. Docs/teaching.md has the figures.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from HSAMSegmentLib.images.orientation import SliceFrame, slice_frame
from HSAMSegmentLib.inference.confidence import read_logits, winning_channel
from HSAMSegmentLib.inference.multi_planar import PlaneLogits
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.preprocess.network_input import SliceWindow
from HSAMSegmentLib.preprocess.regions import StackRegion
from HSAMSegmentLib.runtime.tensors import to_array
from HSAMSegmentLib.training.data.cases import Case
from HSAMSegmentLib.training.data.slice_bank import SliceBank
from HSAMSegmentLib.training.loop.losses import UNLABELLED
from HSAMSegmentLib.training.loop.trainer import Learner
from HSAMSegmentLib.training.loop.validation import ValidationSet
from HSAMSegmentLib.training.setup import TeachSetup, bank_of, draw_of
from HSAMSegmentLib.training.weight_transfer import transfer

FIRST_PLANE_SHARE = 0.75
"""Part of a training after which the first plane is done; the other one starts from what was learned until then."""

_COMPARED_SLICES = 24
"""Slices of the other plane, for each case, on which both networks together are compared with the first one alone."""


@dataclass(frozen=True)
class Comparison:
    """Mean Dice on the same voxels.

    Attributes:
        alone: of the first network.
        together: of the mean of both networks' logits.
    """

    alone: float
    together: float

    @property
    def is_better(self) -> bool:
        """Whether the second network is worth its time."""
        return self.together > self.alone


def sentence_on(plane: str, comparison: Comparison | None) -> str:
    """What became of the second network; no comparison if it came to none."""
    if comparison is None:
        return f"It ended before a second network had learned {plane} slices: the model reads one plane."
    measured = f"Dice {comparison.together:.3f} instead of {comparison.alone:.3f}, where held-out slices cross these"
    if comparison.is_better:
        return f"A second network reads {plane} slices; both together are better ({measured})."
    return f"A second network for {plane} slices was left out, since both together are no better ({measured})."


class OtherPlane:
    """Slices along another plane and the network that learns them."""

    def __init__(
        self, plane: str, setup: TeachSetup, first: SegmentationNetwork, *, seed: int, batch_size: int
    ) -> None:
        """Cut the slices and copy the network.

        Args:
            plane: "axial", "coronal" or "sagittal".
            setup: of the first plane. What is held out there is not learned here either.
            first: the first plane's network, taught.
            seed: of all draws.
            batch_size: views per step.
        """
        self.plane, self._setup = plane, setup
        self._plan = replace(setup.plan, slices=replace(setup.plan.slices, plane=plane))
        banks = tuple(bank_of(self._without_held(case, bank), self._plan) for case, bank in self._taught())
        self.draw = draw_of(banks, (), self._plan, num_classes=len(setup.labels), batch_size=batch_size)
        network = copy.deepcopy(first).train().requires_grad_(True)
        earlier = setup.start.other_planes.get(plane)
        if earlier is not None:
            transfer(earlier, network, old_labels=setup.start.old_labels, new_labels=setup.labels)
        self.learner = Learner(
            network,
            rate=self._plan.rate,
            encoder_share=self._plan.encoder_share,
            seed=seed,
            device=next(network.parameters()).device,
            schedule=self._plan.schedule,
        )

    def compare(self, first: SegmentationNetwork, between_batches: Callable[[], None]) -> Comparison | None:
        """Dice of the first network alone and of both, where held-out slices and some of this plane's cross.

        Args:
            first: the first plane's network, in evaluation mode.
            between_batches: called before each slice; may raise to stop.

        Returns:
            None if there is nothing to see there.
        """
        scores = []
        for case, item in self._judged():
            crossing = _Crossing(case, item, self._plan.slices.plane, self._setup)
            scores += crossing.dice(first, self.learner.average.network, self._bank(case), between_batches)
        return Comparison(*(float(value) for value in np.mean(scores, axis=0))) if scores else None

    @property
    def compared_inputs(self) -> int:
        """How many network inputs a comparison takes."""
        return sum(len(item.slices) + _COMPARED_SLICES for item in self._setup.held)

    def _taught(self) -> list[tuple[Case, SliceBank]]:
        return list(zip(self._setup.training, self._setup.draw.banks))

    def _bank(self, case: Case) -> SliceBank:
        """The slices of a case along this plane."""
        cut = [bank for taught, bank in zip(self._setup.training, self.draw.banks) if taught is case]
        return cut[0] if cut else bank_of(case, self._plan)

    def _judged(self) -> list[tuple[Case, ValidationSet]]:
        """The cases with held-out slices: the given ones, or else those that are taught."""
        if self._setup.validation:
            return list(zip(self._setup.validation, self._setup.held))
        held = {id(item.bank): item for item in self._setup.held}
        return [(case, held[id(bank)]) for case, bank in self._taught() if id(bank) in held]

    def _without_held(self, case: Case, bank: SliceBank) -> Case:
        """A case whose held-out slices of the first plane count as unlabelled."""
        indices = [index for item in self._setup.held if item.bank is bank for index in item.slices]
        labels = case.labels.copy()
        slice_frame(case.volume.geometry, self._setup.plan.slices.plane).to_stack(labels)[indices] = UNLABELLED
        return replace(case, labels=labels)


class _Crossing:
    """The voxels of a case where held-out slices of the first plane and some slices of another one cross."""

    def __init__(self, case: Case, item: ValidationSet, plane: str, setup: TeachSetup) -> None:
        self._case, self._item, self._setup = case, item, setup
        self._first = slice_frame(case.volume.geometry, setup.plan.slices.plane)
        self._other = slice_frame(case.volume.geometry, plane)
        filled = np.flatnonzero((self._other.to_stack(case.labels) != 0).any(axis=(1, 2)))
        chosen = np.linspace(0, len(filled) - 1, min(_COMPARED_SLICES, len(filled))).round().astype(int)
        self._slices = [int(index) for index in filled[chosen]]

    def dice(
        self,
        first: SegmentationNetwork,
        second: SegmentationNetwork,
        other_bank: SliceBank,
        between_batches: Callable[[], None],
    ) -> list[tuple[float, float]]:
        """For each label that occurs there: Dice of the first network alone, and of both together."""
        num_classes = len(self._setup.labels)
        sums = PlaneLogits(self._case.volume.array.shape, num_classes)
        known = np.zeros(self._case.volume.array.shape, dtype=bool)
        self._other.to_stack(known)[self._slices] = True
        for index in self._slices:
            between_batches()
            sums.add(self._logits(second, other_bank, index), self._other, _whole(self._other), index)
        sums.planes = 1
        found = []
        for index in self._item.slices:
            between_batches()
            where = self._first.to_stack(known)[index]
            logits = self._logits(first, self._item.bank, index)
            mean = sums.mean_with(logits, self._first, _whole(self._first), index)
            truth = to_array(self._item.bank.reference[index])
            found.append(np.stack([labels[where] for labels in (truth, _winner(logits), _winner(mean))]))
        truth, alone, together = np.concatenate(found, axis=1)
        occurring = [value for value in range(1, num_classes + 1) if (truth == value).any()]
        return [(_dice(alone, truth, value), _dice(together, truth, value)) for value in occurring]

    def _logits(self, network: SegmentationNetwork, bank: SliceBank, index: int) -> Tensor:
        device = next(network.parameters()).device
        last_only = self._setup.plan.prediction.stages == "last"
        with torch.inference_mode():
            stages = network.eval()(bank.all_tiles([index]).to(device)).stages
            return read_logits([bank.framing.logits(stage) for stage in stages], last_only=last_only)


def _whole(frame: SliceFrame) -> StackRegion:
    slices, rows, columns = frame.stack_shape
    return StackRegion(0, slices, SliceWindow(0, rows, 0, columns))


def _winner(logits: Tensor) -> np.ndarray:
    return to_array(winning_channel(logits))[0]


def _dice(found: np.ndarray, truth: np.ndarray, value: int) -> float:
    ours, theirs = found == value, truth == value
    return 2.0 * np.count_nonzero(ours & theirs) / (np.count_nonzero(ours) + np.count_nonzero(theirs))
