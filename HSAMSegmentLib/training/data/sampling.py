"""Sample slices balanced over labels, so that small structures are seen as often as large ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from HSAMSegmentLib.training.data.cases import UNLABELED
from HSAMSegmentLib.training.data.slice_bank import SliceBank


@dataclass(frozen=True)
class Item:
    """One network input of the training set: index of its bank, slice, and tile."""

    bank: int
    slice_index: int
    tile: int


class BalancedSampler:
    """Draws a label uniformly and then a slice with it; some draws are from all slices, empty ones included."""

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
            any_slice_share: share of the draws that go over all labeled slices.
            excluded: for each bank the slices to leave out (held out for validation); empty for none.
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
        """Each item once, in an order in which labels are balanced in any first part."""
        drawn = dict.fromkeys(self.draw(4 * len(self.items), generator))
        return [*drawn, *(item for item in self.items if item not in drawn)]

    def only(self, items: Sequence[Item]) -> BalancedSampler:
        """A sampler over a part of the items."""
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
