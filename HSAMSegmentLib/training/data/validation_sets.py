"""Slices to validate on: given cases, or blocks of slices held out of the training cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from HSAMSegmentLib.training.data.slice_bank import SliceBank

GIVEN_CASE = "given case"
SAME_SCAN = "held-out slices of the same scan"
_HELD_OUT_SHARE = 0.2
_FEWEST_LABELED = 6


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


def whole_case(bank: SliceBank) -> ValidationSet:
    """All labeled slices of a case."""
    return ValidationSet(bank, tuple(int(index) for index in np.flatnonzero(bank.labeled)), GIVEN_CASE)


def hold_out_blocks(bank: SliceBank, *, share: float = _HELD_OUT_SHARE) -> ValidationSet | None:
    """Two contiguous blocks of slices of a volume, a third and two thirds along its labeled slices.

    Contiguous, because a slice between two training slices is almost known; two, because one block may miss an organ. A
    slice that holds the last example of a label stays in the training set.

    Returns:
        None if too few slices have labels to spare some.
    """
    filled = np.flatnonzero((bank.reference.flatten(1) != 0).any(dim=1).numpy() & bank.labeled)
    if len(filled) < _FEWEST_LABELED:
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
    left = counts[torch.from_numpy(bank.labeled)].sum(dim=0)
    spared = []
    for index in chosen:
        if bool((left[counts[index]] > 1).all()):
            left = left - counts[index].long()
            spared.append(index)
    return spared


def thinned(sets: Sequence[ValidationSet], most_inputs: float) -> tuple[ValidationSet, ...]:
    """Evenly spaced slices of each set: at most `most_inputs` network inputs in all, but at least one slice each."""
    inputs = sum(len(item.slices) * item.bank.tile_count for item in sets)
    if inputs <= most_inputs:
        return tuple(sets)
    return tuple(replace(item, slices=_spaced(item.slices, most_inputs / inputs)) for item in sets)


def _spaced(slices: tuple[int, ...], share: float) -> tuple[int, ...]:
    count = max(1, int(share * len(slices)))
    return tuple(slices[int((number + 0.5) * len(slices) / count)] for number in range(count))


def sources_of(sets: Sequence[ValidationSet]) -> str:
    """What Dice is measured on, in words."""
    return " and ".join(sorted({item.source for item in sets})) or "nothing"
