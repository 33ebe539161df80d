"""The frozen part's results for everything a training looks at: encoded once, as much of it as there is time for.

The slices to validate on are encoded as well: a look at the validation then costs the head alone, too.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.runtime.disk import DISK_RESERVE_BYTES
from HSAMSegmentLib.training.data.batches import Draw, gather
from HSAMSegmentLib.training.data.sampling import Item
from HSAMSegmentLib.training.data.slice_bank import SliceBank
from HSAMSegmentLib.training.features.adaptation import SplitNetwork
from HSAMSegmentLib.training.features.feature_cache import (
    MOST_VIEWS,
    CacheOwner,
    FeatureCache,
    affordable_views,
    base_folder,
    entry_bytes,
)
from HSAMSegmentLib.training.loop.validation import ValidationSet

_PIXELS_AT_ONCE = 4 * 256 * 256
NOTE_SECONDS = 5.0
_HELD_ROOM_SHARE = 0.5


class Pace(Protocol):
    """How much may be encoded."""

    def enough(self, views: float) -> bool:
        """Whether this many views of each slice will do (0.5: of every other slice)."""

    def views(self, seconds: float) -> float:
        """How many views of each slice that comes to at most if one view of all slices takes so many seconds."""

    def held_inputs(self, seconds: float) -> float:
        """How many network inputs may be kept for the validation if one takes so many seconds."""


class Unhurried:
    """All views that fit, and all slices to validate on."""

    def enough(self, views: float) -> bool:
        """See `Pace`."""
        return False

    def views(self, seconds: float) -> float:
        """See `Pace`."""
        return float("inf")

    def held_inputs(self, seconds: float) -> float:
        """See `Pace`."""
        return float("inf")


@dataclass(frozen=True)
class KeepingRules:
    """Where features are kept and how many.

    Attributes:
        capacity_bytes: bound on the files.
        parent: folder for the files, None for the system's for temporary ones.
        owner: the training, so that it can go on after a kill; None if it cannot.
        pace: how much may be encoded.
        is_resumed: the slices to validate on were settled by an earlier run: none may be left out.
        progress: told (done, most) after each group of views; may raise to stop.
        note_seconds: how often it is written down how far the encoding is.
    """

    capacity_bytes: int
    parent: Path | None = None
    owner: CacheOwner | None = None
    pace: Pace = field(default_factory=Unhurried)
    is_resumed: bool = False
    progress: Callable[[int, int], None] = lambda done, most: None
    note_seconds: float = NOTE_SECONDS


class KeptFeatures:
    """Encodes on construction; afterwards says which entries of the cache belong to what.

    View 0 of every slice is the slice itself, the others are augmented. The first group of views comes first in the
    cache, then the slices to validate on, then the other views.
    """

    def __init__(
        self,
        split: SplitNetwork,
        draw: Draw,
        held: Sequence[ValidationSet],
        device: torch.device,
        generator: torch.Generator,
        rules: KeepingRules,
    ) -> None:
        """
        Args:
            split: the network in evaluation mode, cut where its frozen part ends.
            draw: views.
            held: slices to validate on.
            device: where the network is.
            generator: source of the augmentation.
            rules: how much, and where.

        Raises:
            OutputError: if the disk is too full.
        """
        self._split, self._draw, self._device, self._rules = split, draw, device, rules
        self._generator, self._asked = generator, held
        self.encoding_seconds: float | None = None
        """For one view, as measured; None where a killed process had encoded them."""
        self.items = draw.sampler.spread(generator)
        self._at_once = min(max(1, _PIXELS_AT_ONCE // draw.image_size**2), len(self.items))
        self._noted = time.monotonic()
        self._done = 0
        adopted = FeatureCache.adopt(rules.owner, rules.parent) if rules.owner else None
        if adopted is None:
            self._start(held)
        else:
            self._take_up(*adopted, held)
        try:
            self._fill()
        except BaseException:
            self.cache.close()
            raise

    @property
    def kept_items(self) -> Sequence[Item]:
        """The slices with at least one view."""
        return self.items[: self.views]

    @property
    def shortfalls(self) -> list[str]:
        """Sentences on what there was no time or no space to encode."""
        found = []
        if len(self.kept_items) < len(self.items):
            found.append(
                f"There was time to encode {len(self.kept_items)} of {len(self.items)} slices only. Give it more "
                "minutes, a smaller encoder or a faster device."
            )
        if sum(len(item.slices) for item in self.held) < sum(len(item.slices) for item in self._asked):
            found.append(
                "There was no time or no space to measure the Dice on all held-out slices: some were left out."
            )
        return found

    def entries(self, drawn: Sequence[Item], generator: torch.Generator) -> list[int]:
        """An entry for each drawn slice, any of its views."""
        parts = torch.rand(len(drawn), generator=generator).tolist()
        found = []
        for item, part in zip(drawn, parts):
            place = self._places[item]
            views = -(-(self.views - place) // len(self.items))
            found.append(self._entry(place + len(self.items) * min(int(part * views), views - 1)))
        return found

    def stages(
        self, network: SegmentationNetwork, bank: SliceBank, slices: Sequence[int], device: torch.device | str
    ) -> Sequence[Tensor]:
        """Logits of all stages for slices to validate on, from a network with the same frozen part."""
        entries = [self._held_entries[id(bank), index, tile] for index in slices for tile in range(bank.tile_count)]
        kept, _ = self.cache.read(entries, device)
        return self._split.through(network).learning_part(kept).stages

    def close(self) -> None:
        """Remove the files."""
        self.cache.close()

    def _start(self, held: Sequence[ValidationSet]) -> None:
        """Encode the first views, see what that takes, and lay out the files."""
        began = time.monotonic()
        kept, labels = self._encoded(0)
        self.encoding_seconds = seconds = (time.monotonic() - began) / self._at_once
        shapes = tuple(tuple(tensor.shape[1:]) for tensor in kept)
        size = (self._draw.image_size, self._draw.image_size)
        each = entry_bytes(shapes, size)
        free = shutil.disk_usage(base_folder(self._rules.parent)).free - DISK_RESERVE_BYTES
        room = min(self._rules.capacity_bytes, free)
        most_held = min(self._rules.pace.held_inputs(seconds), _HELD_ROOM_SHARE * room / each)
        self._lay_out(tuple(held) if self._rules.is_resumed else thinned(held, most_held))
        room -= each * len(self._held_items)
        most = math.ceil(max(1.0, min(MOST_VIEWS, self._rules.pace.views(seconds * len(self.items)))))
        views = affordable_views(len(self.items), each, capacity_bytes=room, most=most)
        entries = len(self._held_items) + views * len(self.items)
        self.cache = FeatureCache(entries, shapes, size, parent=self._rules.parent, owner=self._rules.owner)
        self.cache.write(0, kept, labels)
        self._done = self._at_once

    def _take_up(self, cache: FeatureCache, journal: dict[str, Any], held: Sequence[ValidationSet]) -> None:
        """Go on where a killed process was."""
        self.cache, self._done = cache, journal["done"]
        self._generator.set_state(journal["generator"])
        self._lay_out(tuple(replace(item, slices=tuple(kept)) for item, kept in zip(held, journal["held"])))

    def _lay_out(self, held: tuple[ValidationSet, ...]) -> None:
        self.held = held
        self._places = {item: place for place, item in enumerate(self.items)}
        self._held_items = [
            (item.bank, index, tile) for item in held for index in item.slices for tile in range(item.bank.tile_count)
        ]
        self._held_entries = {
            (id(bank), index, tile): self._at_once + number
            for number, (bank, index, tile) in enumerate(self._held_items)
        }

    def _entry(self, view: int) -> int:
        """Where the n-th view of all lies."""
        return view if view < self._at_once else view + len(self._held_items)

    @property
    def views(self) -> int:
        """How many views are kept, of all slices together."""
        return max(min(self._done, self._at_once), self._done - len(self._held_items))

    def _fill(self) -> None:
        for first, last in self._groups():
            self._rules.progress(self._done, len(self.cache))
            if first >= self._at_once + len(self._held_items):
                if self._rules.pace.enough(self.views / len(self.items)):
                    break
                kept, labels = self._encoded(first - len(self._held_items), last - first)
            else:
                kept, labels = self._encoded_held(first - self._at_once, last - first)
            self.cache.write(first, kept, labels)
            self._done = last
            self._note()
        self._note(at_once=True)
        self._rules.progress(self._done, len(self.cache))

    def _groups(self) -> Iterator[tuple[int, int]]:
        """First and last entry of each group that is still to be encoded; none mixes held slices or rounds of views."""
        first, held_end = self._done, self._at_once + len(self._held_items)
        while first < len(self.cache):
            last = first + self._at_once
            if first < held_end:
                last = min(last, held_end)
            else:
                place = (first - len(self._held_items)) % len(self.items)
                last = min(last, first + len(self.items) - place)
            yield first, last
            first = last

    def _encoded(self, view: int, count: int | None = None) -> tuple[tuple[Tensor, ...], Tensor]:
        """Encode views from the n-th of all on."""
        place = view % len(self.items)
        group = self.items[place : place + (count or self._at_once)]
        if view < len(self.items):
            images, labels = gather(self._draw.banks, group)
        else:
            images, labels = self._draw.views(group, self._generator, self._device)
        return self._split.frozen_part(images.to(self._device)), labels

    def _encoded_held(self, first: int, count: int) -> tuple[tuple[Tensor, ...], Tensor]:
        group = self._held_items[first : first + count]
        images = torch.cat([bank.inputs([index], [tile]) for bank, index, tile in group])
        labels = torch.cat([bank.targets([index], [tile]) for bank, index, tile in group])
        return self._split.frozen_part(images.to(self._device)), labels

    def _note(self, *, at_once: bool = False) -> None:
        if self._rules.owner is None or (not at_once and time.monotonic() - self._noted < self._rules.note_seconds):
            return
        self.cache.note(
            {
                "done": self._done,
                "generator": self._generator.get_state(),
                "held": [list(item.slices) for item in self.held],
            }
        )
        self._noted = time.monotonic()


def thinned(held: Sequence[ValidationSet], most_inputs: float) -> tuple[ValidationSet, ...]:
    """Evenly spaced slices of each set, so that all sets together are no more network inputs than this, or one each."""
    inputs = sum(len(item.slices) * item.bank.tile_count for item in held)
    if inputs <= most_inputs:
        return tuple(held)
    return tuple(replace(item, slices=_spaced(item.slices, most_inputs / inputs)) for item in held)


def _spaced(slices: tuple[int, ...], share: float) -> tuple[int, ...]:
    count = max(1, int(share * len(slices)))
    return tuple(slices[int((number + 0.5) * len(slices) / count)] for number in range(count))
