"""Predict validation slices and measure their Dice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from HSAMSegmentLib.errors import TrainingError
from HSAMSegmentLib.inference.test_time_augmentation import mean_over_augmentations
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.preprocess.rules import PredictionRule
from HSAMSegmentLib.runtime.tensors import to_array
from HSAMSegmentLib.training import ranks
from HSAMSegmentLib.training.data.slice_bank import SliceBank
from HSAMSegmentLib.training.data.validation_sets import ValidationSet

StagesOf = Callable[[SliceBank, Sequence[int]], Sequence[torch.Tensor]]

_BATCH = 4


@dataclass(frozen=True)
class ValidationResult:
    """Dice on the validation slices.

    Attributes:
        dice: for each label value 1..K the mean over the validation sets in which it occurs (in the reference or in
            the prediction); NaN if it occurs nowhere.
        per_set: for each validation set a list of Dice per label, NaN where it occurs in neither.
    """

    dice: tuple[float, ...]
    per_set: tuple[tuple[float, ...], ...]

    @property
    def mean(self) -> float:
        """Mean over the labels that occur; 0 if none does."""
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
    """Labels uint8 [n, rows, cols] of slices, read as in segmenting.

    Args:
        network: in evaluation mode.
        bank: where the slices are.
        slices: their indices.
        device: where the network is.
        between_batches: called before each batch; may raise to stop.
        stages_of: gives the logits of all stages for some slices, in place of the network; such slices are seen in
            the plain view only.
        rule: how the outputs are read; the mean of all stages in one plain view if None. Each slice is read by itself,
            since those asked for need not be neighbors.
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
    """Dice per label over all slices of each set; several ranks divide the slices among themselves.

    Args:
        network: in evaluation mode.
        sets: what to validate on.
        num_classes: foreground classes K.
        device: where the network is.
        step: take every n-th slice only, for a quick validation on thin slices.
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
