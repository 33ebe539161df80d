"""The feature cache of a training: augmented views and validation slices, encoded once by the frozen part.

Validation slices are encoded as well, so a validation costs no more than the head.
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

from HSAMSegmentLib.models.heads.cnn import CnnHead
from HSAMSegmentLib.models.interface import SegmentationNetwork, StageLogits
from HSAMSegmentLib.runtime.disk import DISK_RESERVE_BYTES
from HSAMSegmentLib.training import ranks
from HSAMSegmentLib.training.data.batches import TrainingSet, gather
from HSAMSegmentLib.training.data.sampling import Item, ValidationSet, thinned
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
from HSAMSegmentLib.training.features.token_subset import (
    RECTANGLE_TOKENS,
    TokenSubset,
    rectangular_subset,
    scattered_shape,
    scattered_subset,
)

_PIXELS_AT_ONCE = 4 * 256 * 256
NOTE_SECONDS = 5.0
_VALIDATION_ROOM_SHARE = 0.5

STRIDE = 16


class EncodingLimits(Protocol):
    """Limits on how much is encoded."""

    def enough(self, views: float) -> bool:
        """Whether this many views of each slice are enough (0.5: a view of every second slice)."""

    def views(self, seconds: float) -> float:
        """Upper bound on the views per slice, if one view of all slices takes this many seconds."""

    def validation_inputs(self, seconds: float) -> float:
        """Upper bound on validation inputs, if encoding one takes this many seconds."""


class UnlimitedEncoding:
    """Encodes all views that fit, and all validation slices."""

    def enough(self, views: float) -> bool:
        """See `EncodingLimits`."""
        return False

    def views(self, seconds: float) -> float:
        """See `EncodingLimits`."""
        return float("inf")

    def validation_inputs(self, seconds: float) -> float:
        """See `EncodingLimits`."""
        return float("inf")


@dataclass(frozen=True)
class CacheOptions:
    """Location and size of the feature cache.

    Attributes:
        capacity_bytes: upper bound on the size of the files.
        parent: folder of the cache; None for the system's temporary folder.
        owner: the training, which finds its cache again after a kill; None if it cannot be resumed.
        limits: limits on how much is encoded.
        is_resumed: the validation slices were chosen by an earlier run, so none may be left out.
        progress: called with (done, most) after each group of views; may raise to stop.
        note_seconds: interval between entries in the cache's journal.
    """

    capacity_bytes: int
    parent: Path | None = None
    owner: CacheOwner | None = None
    limits: EncodingLimits = field(default_factory=UnlimitedEncoding)
    is_resumed: bool = False
    progress: Callable[[int, int], None] = lambda done, most: None
    note_seconds: float = NOTE_SECONDS


class CachedFeatures:
    """Encodes on construction, then maps views and slices to cache entries.

    View 0 of every slice is the slice itself, the others are augmented. The cache holds the first group of views, then
    the validation slices, then the other views.
    """

    def __init__(
        self,
        split: SplitNetwork,
        training_set: TrainingSet,
        validation_sets: Sequence[ValidationSet],
        device: torch.device,
        generator: torch.Generator,
        options: CacheOptions,
    ) -> None:
        """
        Args:
            split: the network in evaluation mode.
            training_set: the training slices.
            validation_sets: the validation slices.
            device: where the network is.
            generator: generator of the augmentation.
            options: size and location of the cache.

        Raises:
            OutputError: if the disk is too full.
        """
        self._split, self._training_set, self._device, self._options = split, training_set, device, options
        self._generator, self._requested = generator, validation_sets
        self.encoding_seconds: float | None = None
        """Measured for one view; None if an earlier process encoded them."""
        self.items = training_set.sampler.spread(generator)
        self._at_once = min(max(1, _PIXELS_AT_ONCE // training_set.image_size**2), len(self.items))
        self._noted = time.monotonic()
        self._done = 0
        adopted = FeatureCache.adopt(options.owner, options.parent) if options.owner else None
        if adopted is None:
            self._start(validation_sets)
        else:
            self._continue(*adopted, validation_sets)
        try:
            self._fill()
        except BaseException:
            self.cache.close()
            raise

    @property
    def cached_items(self) -> Sequence[Item]:
        """Slices with at least one view in the cache."""
        return self.items[: self.views]

    @property
    def shortfalls(self) -> list[str]:
        """Sentences on what was not encoded for lack of time or space."""
        found = []
        if len(self.cached_items) < len(self.items):
            found.append(
                f"There was only time to encode {len(self.cached_items)} of {len(self.items)} slices. Use more "
                "minutes, a smaller encoder, or a faster device."
            )
        if sum(len(item.slices) for item in self.validation_sets) < sum(len(item.slices) for item in self._requested):
            found.append("There was not enough time or space to validate on all held-out slices: some were left out.")
        return found

    def entries(self, drawn: Sequence[Item], generator: torch.Generator) -> list[int]:
        """Cache entries of drawn slices: one random view of each."""
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
        """Logits of all stages for validation slices, from a network with the same frozen part."""
        entries = [
            self._validation_entries[id(bank), index, tile] for index in slices for tile in range(bank.tile_count)
        ]
        kept, _ = self.cache.read(entries, device)
        return self._split.through(network).trained_part(kept).stages

    def close(self) -> None:
        """Delete the files."""
        self.cache.close()

    def _start(self, sets: Sequence[ValidationSet]) -> None:
        """Encode the first views while measuring, and reserve the files."""
        began = time.monotonic()
        kept, labels = self._encoded(0)
        self.encoding_seconds = seconds = (time.monotonic() - began) / self._at_once
        shapes = tuple(tuple(tensor.shape[1:]) for tensor in kept)
        size = (self._training_set.image_size, self._training_set.image_size)
        each = entry_bytes(shapes, size)
        free = shutil.disk_usage(base_folder(self._options.parent)).free - DISK_RESERVE_BYTES
        room = min(self._options.capacity_bytes, free)
        most_inputs = min(self._options.limits.validation_inputs(seconds), _VALIDATION_ROOM_SHARE * room / each)
        self._lay_out(tuple(sets) if self._options.is_resumed else thinned(sets, most_inputs))
        room -= each * len(self._validation_items)
        most = math.ceil(max(1.0, min(MOST_VIEWS, self._options.limits.views(seconds * len(self.items)))))
        views = affordable_views(len(self.items), each, capacity_bytes=room, most=most)
        entries = len(self._validation_items) + views * len(self.items)
        self.cache = FeatureCache(entries, shapes, size, parent=self._options.parent, owner=self._options.owner)
        self.cache.write(0, kept, labels)
        self._done = self._at_once

    def _continue(self, cache: FeatureCache, journal: dict[str, Any], sets: Sequence[ValidationSet]) -> None:
        """Continue after a killed process."""
        self.cache, self._done = cache, journal["done"]
        self._generator.set_state(journal["generator"])
        self._lay_out(tuple(replace(item, slices=tuple(kept)) for item, kept in zip(sets, journal["held"])))

    def _lay_out(self, sets: tuple[ValidationSet, ...]) -> None:
        self.validation_sets = sets
        self._places = {item: place for place, item in enumerate(self.items)}
        self._validation_items = [
            (item.bank, index, tile) for item in sets for index in item.slices for tile in range(item.bank.tile_count)
        ]
        self._validation_entries = {
            (id(bank), index, tile): self._at_once + number
            for number, (bank, index, tile) in enumerate(self._validation_items)
        }

    def _entry(self, view: int) -> int:
        """Entry of the n-th view of all."""
        return view if view < self._at_once else view + len(self._validation_items)

    @property
    def views(self) -> int:
        """Number of cached views of all slices together."""
        return max(min(self._done, self._at_once), self._done - len(self._validation_items))

    def _fill(self) -> None:
        for first, last in self._groups():
            self._options.progress(self._done, len(self.cache))
            if first >= self._at_once + len(self._validation_items):
                if self._options.limits.enough(self.views / len(self.items)):
                    break
                kept, labels = self._encoded(first - len(self._validation_items), last - first)
            else:
                kept, labels = self._encoded_validation(first - self._at_once, last - first)
            self.cache.write(first, kept, labels)
            self._done = last
            self._note()
        self._note(at_once=True)
        self._options.progress(self._done, len(self.cache))

    def _groups(self) -> Iterator[tuple[int, int]]:
        """First and last entry of each group still to be encoded; validation slices and views are never mixed."""
        first, validation_end = self._done, self._at_once + len(self._validation_items)
        while first < len(self.cache):
            last = first + self._at_once
            if first < validation_end:
                last = min(last, validation_end)
            else:
                place = (first - len(self._validation_items)) % len(self.items)
                last = min(last, first + len(self.items) - place)
            yield first, last
            first = last

    def _encoded(self, view: int, count: int | None = None) -> tuple[tuple[Tensor, ...], Tensor]:
        """Encode views from the n-th on."""
        place = view % len(self.items)
        group = self.items[place : place + (count or self._at_once)]
        if view < len(self.items):
            images, labels = gather(self._training_set.banks, group)
        else:
            images, labels = self._training_set.views(group, self._generator, self._device)
        return self._split.frozen_part(images.to(self._device)), labels

    def _encoded_validation(self, first: int, count: int) -> tuple[tuple[Tensor, ...], Tensor]:
        group = self._validation_items[first : first + count]
        images = torch.cat([bank.inputs([index], [tile]) for bank, index, tile in group])
        labels = torch.cat([bank.targets([index], [tile]) for bank, index, tile in group])
        return self._split.frozen_part(images.to(self._device)), labels

    def _note(self, *, at_once: bool = False) -> None:
        if self._options.owner is None or (not at_once and time.monotonic() - self._noted < self._options.note_seconds):
            return
        self.cache.note(
            {
                "done": self._done,
                "generator": self._generator.get_state(),
                "held": [list(item.slices) for item in self.validation_sets],
            }
        )
        self._noted = time.monotonic()


class CachedFeatureBatches:
    """Draws views from the feature cache and runs the trained part of the network."""

    def __init__(
        self, split: SplitNetwork, training_set: TrainingSet, device: torch.device, features: CachedFeatures
    ) -> None:
        """
        Args:
            split: the network in evaluation mode, split where its frozen part ends.
            training_set: the slices.
            device: device of the network.
            features: the cached output of the frozen part.
        """
        self.split, self.training_set, self.device, self.features = split, training_set, device, features
        self.sampler = training_set.sampler.only(features.cached_items)

    def forward(self, generator: torch.Generator) -> tuple[StageLogits, Tensor]:
        """See `Batches`."""
        drawn = self.sampler.draw(self.training_set.global_batch_size, generator)
        entries = ranks.part_of(self.features.entries(drawn, generator))
        cached, labels = self.features.cache.read(entries, self.device)
        tokens = self._token_subset(labels, ranks.own_generator(generator))
        if tokens is not None:
            labels = tokens.take_labels(labels)
        return self.split.trained_part(cached, labels, tokens), labels

    def close(self) -> None:
        """Delete the files."""
        self.features.close()

    def _token_subset(self, labels: Tensor, generator: torch.Generator) -> TokenSubset | None:
        """The part of the embeddings that a step decodes; None for all of it."""
        grid = (self.training_set.image_size // STRIDE,) * 2
        if isinstance(self.split.network.head, CnnHead):
            return rectangular_subset(labels, grid, generator) if grid > RECTANGLE_TOKENS else None
        if scattered_shape(grid) == grid:
            return None
        return scattered_subset(len(labels), grid, generator, labels.device)
