"""A second network for slices along another plane, trained after the first one and kept only if it helps.

It starts as a copy of the first network, which already knows the structures and the contrast, so it needs a fraction of
the steps. Docs/finetuning.md has the figures.
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
from HSAMSegmentLib.preprocess.network_input import SliceWindow, StackRegion
from HSAMSegmentLib.runtime.tensors import to_array
from HSAMSegmentLib.training.data.cases import UNLABELED, Case
from HSAMSegmentLib.training.data.sampling import ValidationSet
from HSAMSegmentLib.training.data.slice_bank import SliceBank
from HSAMSegmentLib.training.initialization import transfer
from HSAMSegmentLib.training.loop.trainer import Trainer
from HSAMSegmentLib.training.training_setup import TrainingSetup, slice_bank_of, training_set_of

FIRST_PLANE_SHARE = 0.75
"""Fraction of a training for the first network; the second one then starts from its weights."""

_COMPARED_SLICES = 24
"""Slices of the second plane per case for comparing both networks with the first one alone."""


@dataclass(frozen=True)
class PlaneComparison:
    """Mean Dice of one and of both networks on the same voxels.

    Attributes:
        alone: Dice of the first network.
        together: Dice of the mean of both networks' logits.
    """

    alone: float
    together: float

    @property
    def is_better(self) -> bool:
        """Whether the second network helps."""
        return self.together > self.alone


def describe_second_plane(plane: str, comparison: PlaneComparison | None) -> str:
    """A sentence on the second network; `comparison` is None if the training ended before it."""
    if comparison is None:
        return f"It ended before a second network was trained on {plane} slices: the model reads one plane."
    measured = f"Dice {comparison.together:.3f} instead of {comparison.alone:.3f}, where held-out slices cross these"
    if comparison.is_better:
        return f"A second network reads {plane} slices; both together are better ({measured})."
    return f"A second network for {plane} slices was left out, since both together are no better ({measured})."


class SecondPlane:
    """Slices along a second plane, and the trainer of their network."""

    def __init__(
        self, plane: str, setup: TrainingSetup, first: SegmentationNetwork, *, seed: int, batch_size: int
    ) -> None:
        """Extract the slices and copy the network.

        Args:
            plane: "axial", "coronal" or "sagittal".
            setup: setup of the first plane; voxels held out there are held out here, too.
            first: the trained network of the first plane.
            seed: random seed.
            batch_size: slices per step.
        """
        self.plane, self._setup = plane, setup
        self._recipe = replace(setup.recipe, slices=replace(setup.recipe.slices, plane=plane))
        banks = tuple(
            slice_bank_of(self._without_held(case, bank), self._recipe) for case, bank in self._training_cases()
        )
        self.training_set = training_set_of(
            banks, (), self._recipe, num_classes=len(setup.labels), batch_size=batch_size
        )
        network = copy.deepcopy(first).train().requires_grad_(True)
        earlier = setup.initial.other_planes.get(plane)
        if earlier is not None:
            transfer(earlier, network, old_labels=setup.initial.old_labels, new_labels=setup.labels)
        self.trainer = Trainer(
            network,
            rate=self._recipe.rate,
            encoder_share=self._recipe.encoder_share,
            seed=seed,
            device=next(network.parameters()).device,
            schedule=self._recipe.schedule,
        )

    def compare(self, first: SegmentationNetwork, between_batches: Callable[[], None]) -> PlaneComparison | None:
        """Dice of the first network alone and of both, where held-out slices intersect some slices of this plane.

        Args:
            first: the first plane's network, in evaluation mode.
            between_batches: called before each slice; may raise to stop.

        Returns:
            None if no label occurs there.
        """
        scores = []
        for case, item in self._validation_cases():
            intersection = _Intersection(case, item, self._recipe.slices.plane, self._setup)
            scores += intersection.dice(first, self.trainer.average.network, self._bank(case), between_batches)
        return PlaneComparison(*(float(value) for value in np.mean(scores, axis=0))) if scores else None

    @property
    def compared_inputs(self) -> int:
        """Number of network inputs of a comparison."""
        return sum(len(item.slices) + _COMPARED_SLICES for item in self._setup.validation_sets)

    def _training_cases(self) -> list[tuple[Case, SliceBank]]:
        return list(zip(self._setup.training, self._setup.training_set.banks))

    def _bank(self, case: Case) -> SliceBank:
        """The slices of a case along this plane."""
        found = [bank for trained, bank in zip(self._setup.training, self.training_set.banks) if trained is case]
        return found[0] if found else slice_bank_of(case, self._recipe)

    def _validation_cases(self) -> list[tuple[Case, ValidationSet]]:
        """The cases with validation slices: the validation cases, or otherwise the training cases."""
        if self._setup.validation:
            return list(zip(self._setup.validation, self._setup.validation_sets))
        sets = {id(item.bank): item for item in self._setup.validation_sets}
        return [(case, sets[id(bank)]) for case, bank in self._training_cases() if id(bank) in sets]

    def _without_held(self, case: Case, bank: SliceBank) -> Case:
        """A case with the held-out slices of the first plane marked as unlabeled."""
        indices = [index for item in self._setup.validation_sets if item.bank is bank for index in item.slices]
        labels = case.labels.copy()
        slice_frame(case.volume.geometry, self._setup.recipe.slices.plane).to_stack(labels)[indices] = UNLABELED
        return replace(case, labels=labels)


class _Intersection:
    """The voxels of a case in both its validation slices of the first plane and some slices of the second plane."""

    def __init__(self, case: Case, item: ValidationSet, plane: str, setup: TrainingSetup) -> None:
        self._case, self._item, self._setup = case, item, setup
        self._first = slice_frame(case.volume.geometry, setup.recipe.slices.plane)
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
        """Dice of the first network alone and of both, for each label that occurs there."""
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
        last_only = self._setup.recipe.prediction.stages == "last"
        with torch.inference_mode():
            stages = network.eval()(bank.all_tiles([index]).to(device)).stages
            return read_logits([bank.framing.logits(stage) for stage in stages], last_only=last_only)


def _whole(frame: SliceFrame) -> StackRegion:
    slices, rows, columns = frame.stack_shape
    return StackRegion(0, slices, SliceWindow(0, rows, 0, columns))


def _winner(logits: Tensor) -> np.ndarray:
    return np.asarray(to_array(winning_channel(logits))[0])


def _dice(found: np.ndarray, truth: np.ndarray, value: int) -> float:
    ours, theirs = found == value, truth == value
    return float(2.0 * np.count_nonzero(ours & theirs) / (np.count_nonzero(ours) + np.count_nonzero(theirs)))
