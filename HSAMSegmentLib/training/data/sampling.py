"""Sample training slices, balanced over labels so that small structures are seen as often; select validation slices.

Validation slices come from given cases, or are blocks held out of the training cases.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from HSAMSegmentLib.training.data.cases import UNLABELED
from HSAMSegmentLib.training.data.slice_bank import SliceBank

GIVEN_CASE = "given case"
SAME_SCAN = "held-out slices of the same scan"
_HELD_OUT_SHARE = 0.2
_FEWEST_LABELED = 6


@dataclass(frozen=True)
class Item:
    """One network input of the training set: indices of bank, slice and tile."""

    bank: int
    slice_index: int
    tile: int


class BalancedSampler:
    """Draws a label uniformly and then a slice with it; some draws are from all slices, including empty ones."""

    def __init__(
        self,
        banks: Sequence[SliceBank],
        *,
        num_classes: int,
        any_slice_share: float = 0.35,
        excluded: Sequence[frozenset[int]] = (),
    ) -> None:
        """Index the slices by their labels.

        Args:
            banks: the training cases.
            num_classes: foreground classes K.
            any_slice_share: fraction of draws from all labeled slices.
            excluded: slices to leave out (held out for validation) for each bank; empty for none.
        """
        self.items: list[Item] = []
        self.by_label: list[list[Item]] = [[] for _ in range(num_classes)]
        self.any_slice_share = any_slice_share
        for number, bank in enumerate(banks):
            left_out = excluded[number] if excluded else frozenset()
            self._add(number, bank, left_out)
        self.pools = [pool for pool in self.by_label if pool]

    def __len__(self) -> int:
        return len(self.items)

    def draw(self, count: int, generator: torch.Generator) -> list[Item]:
        """Draw `count` items, with replacement."""
        return [self._one(generator) for _ in range(count)]

    def spread(self, generator: torch.Generator) -> list[Item]:
        """Each item once, in an order in which any prefix is balanced over labels."""
        drawn = dict.fromkeys(self.draw(4 * len(self.items), generator))
        return [*drawn, *(item for item in self.items if item not in drawn)]

    def only(self, items: Sequence[Item]) -> BalancedSampler:
        """A sampler over a subset of the items."""
        kept = set(items)
        other = copy.copy(self)
        other.items = [item for item in self.items if item in kept]
        other.by_label = [[item for item in pool if item in kept] for pool in self.by_label]
        other.pools = [pool for pool in other.by_label if pool]
        return other

    def _one(self, generator: torch.Generator) -> Item:
        first, second, third = torch.rand(3, generator=generator).tolist()
        pool = self.items
        if self.pools and first >= self.any_slice_share:
            pool = self.pools[min(int(second * len(self.pools)), len(self.pools) - 1)]
        return pool[min(int(third * len(pool)), len(pool) - 1)]

    def _add(self, number: int, bank: SliceBank, left_out: frozenset[int]) -> None:
        for index in range(len(bank)):
            if not bank.labeled[index] or index in left_out:
                continue
            for tile in range(bank.tile_count):
                item = Item(number, index, tile)
                self.items.append(item)
                for value in torch.unique(bank.labels[index, tile]).tolist():
                    if value not in (0, UNLABELED):
                        self.by_label[value - 1].append(item)


@dataclass(frozen=True)
class ValidationSet:
    """Slices to validate on.

    Attributes:
        bank: bank with the slices.
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
    """Hold out two contiguous blocks of slices, a third and two thirds along the labeled slices of a volume.

    Contiguous, because a slice between two training slices is nearly known; two, because one block may miss an organ.
    The last slice with a label is never held out.

    Returns:
        None if too few slices are labeled.
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
    """The chosen slices, except those that contain the last slice of a label."""
    counts = torch.stack([torch.bincount(labels.flatten(), minlength=256) > 0 for labels in bank.reference])
    left = counts[torch.from_numpy(bank.labeled)].sum(dim=0)
    spared = []
    for index in chosen:
        if bool((left[counts[index]] > 1).all()):
            left = left - counts[index].long()
            spared.append(index)
    return spared


def thinned(sets: Sequence[ValidationSet], most_inputs: float) -> tuple[ValidationSet, ...]:
    """Evenly spaced slices of each set: at most `most_inputs` network inputs in total, at least one slice per set."""
    inputs = sum(len(item.slices) * item.bank.tile_count for item in sets)
    if inputs <= most_inputs:
        return tuple(sets)
    return tuple(replace(item, slices=_spaced(item.slices, most_inputs / inputs)) for item in sets)


def _spaced(slices: tuple[int, ...], share: float) -> tuple[int, ...]:
    count = max(1, int(share * len(slices)))
    return tuple(slices[int((number + 0.5) * len(slices) / count)] for number in range(count))


def sources_of(sets: Sequence[ValidationSet]) -> str:
    """The source of the validation slices, in words."""
    return " and ".join(sorted({item.source for item in sets})) or "nothing"
