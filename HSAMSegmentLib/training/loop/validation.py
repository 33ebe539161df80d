"""How good the network is on slices it does not learn from: whole cases, or blocks of slices of the taught volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from HSAMSegmentLib.errors import TrainingError
from HSAMSegmentLib.inference.test_time_augmentation import mean_over_views
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.preprocess.rules import PredictionRule
from HSAMSegmentLib.runtime.tensors import to_array
from HSAMSegmentLib.training.data.slice_bank import SliceBank

GIVEN_CASE = "given case"
SAME_SCAN = "held-out slices of the same scan"

StagesOf = Callable[[SliceBank, Sequence[int]], Sequence[torch.Tensor]]

_BATCH = 4
_HELD_OUT_SHARE = 0.2
_FEWEST_LABELLED = 6


@dataclass(frozen=True)
class ValidationSet:
    """Slices to validate on.

    Attributes:
        bank: where they are.
        slices: their indices, ascending.
        source: `GIVEN_CASE` or `SAME_SCAN`.
    """

    bank: SliceBank
    slices: tuple[int, ...]
    source: str


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


def whole_case(bank: SliceBank) -> ValidationSet:
    """All labelled slices of a case."""
    return ValidationSet(bank, tuple(int(index) for index in np.flatnonzero(bank.labelled)), GIVEN_CASE)


def hold_out_blocks(bank: SliceBank, *, share: float = _HELD_OUT_SHARE) -> ValidationSet | None:
    """Two contiguous blocks of slices of a volume, a third and two thirds along its labelled slices.

    Contiguous, because a slice between two taught ones is nearly known; two, because one block may miss an organ. A
    slice without which a label could not be taught at all stays with the taught ones.

    Returns:
        None if too few slices have labels to spare some.
    """
    filled = np.flatnonzero((bank.reference.flatten(1) != 0).any(dim=1).numpy() & bank.labelled)
    if len(filled) < _FEWEST_LABELLED:
        return None
    length = max(1, round(share * len(filled) / 2))
    chosen: list[int] = []
    for part in (1 / 3, 2 / 3):
        first = round(part * len(filled) - length / 2)
        chosen += [int(index) for index in filled[first : first + length]]
    spared = _without_last_ones(bank, sorted(set(chosen)))
    return ValidationSet(bank, tuple(spared), SAME_SCAN) if spared else None


def _without_last_ones(bank: SliceBank, chosen: Sequence[int]) -> list[int]:
    """The chosen slices, but for those that would take the last slice of a label with them."""
    counts = torch.stack([torch.bincount(labels.flatten(), minlength=256) > 0 for labels in bank.reference])
    left = counts[torch.from_numpy(bank.labelled)].sum(dim=0)
    spared = []
    for index in chosen:
        if bool((left[counts[index]] > 1).all()):
            left = left - counts[index].long()
            spared.append(index)
    return spared


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
            logits = sum(bank.framing.logits(stage) for stage in (stages[-1:] if rule.stages == "last" else stages))
        found.append(to_array(logits.argmax(dim=1).to(torch.uint8)))
    return np.concatenate(found)


def _stages(network: SegmentationNetwork, images: torch.Tensor, rule: PredictionRule) -> list[torch.Tensor]:
    return mean_over_views(lambda view: network(view).stages, images, rule.views)


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
    """Dice per label over all slices of each set.

    Args:
        network: in evaluation mode.
        sets: what to validate on.
        num_classes: foreground classes K.
        device: where the network is.
        step: take every n-th slice only, for a quick look at thin slices.
        between_batches: called before each batch; may raise to stop.
        stages_of: see `predict_slices`.
        rule: see `predict_slices`.

    Raises:
        TrainingError: if there is nothing to validate on.
    """
    if not sets:
        raise TrainingError("There is nothing to validate on.")
    per_set = []
    for item in sets:
        slices = item.slices[::step]
        predicted = predict_slices(
            network, item.bank, slices, device=device, between_batches=between_batches, stages_of=stages_of, rule=rule
        )
        reference = to_array(item.bank.reference[list(slices)])
        per_set.append(tuple(_dice(predicted == value, reference == value) for value in range(1, num_classes + 1)))
    return ValidationResult(tuple(_mean(column) for column in zip(*per_set)), tuple(per_set))


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    size = np.count_nonzero(first) + np.count_nonzero(second)
    return 2.0 * np.count_nonzero(first & second) / size if size else float("nan")


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
