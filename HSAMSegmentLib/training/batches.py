"""Where a training step gets its views from: made on the fly, or from the kept results of a frozen encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from HSAMSegmentLib.models.cnn_head import CnnHead
from HSAMSegmentLib.models.interface import SegmentationNetwork, StageLogits
from HSAMSegmentLib.training.adaptation import SplitNetwork
from HSAMSegmentLib.training.augment import AugmentRule, augment
from HSAMSegmentLib.training.cells import RECTANGLE_CELLS, SCATTERED_CELLS, Cells, rectangle_cells, scattered_cells
from HSAMSegmentLib.training.feature_cache import FeatureCache, affordable_views, entry_bytes
from HSAMSegmentLib.training.sampling import BalancedSampler, Item
from HSAMSegmentLib.training.slice_bank import SliceBank

STRIDE = 16
_ENCODED_AT_ONCE = 4


def gather(banks: Sequence[SliceBank], items: Sequence[Item]) -> tuple[Tensor, Tensor]:
    """Inputs [B, 3, S, S] and labels [B, S, S] of drawn items."""
    images = torch.cat([banks[item.bank].inputs([item.slice_index], [item.tile]) for item in items])
    labels = torch.cat([banks[item.bank].targets([item.slice_index], [item.tile]) for item in items])
    return images, labels


@dataclass(frozen=True)
class Draw:
    """Where views come from and how they are varied.

    Attributes:
        banks: the training cases.
        sampler: which slices.
        rule: augmentation.
        image_size: side of the network's input.
        batch_size: views per step.
    """

    banks: tuple[SliceBank, ...]
    sampler: BalancedSampler
    rule: AugmentRule
    image_size: int
    batch_size: int

    def views(self, items: Sequence[Item], generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
        """One augmented view of each item on a device: images [B, 3, S, S], labels [B, S, S]."""
        images, labels = (tensor.to(device) for tensor in gather(self.banks, items))
        return augment(images, labels, self.rule, size=(self.image_size, self.image_size), generator=generator)


class Batches(Protocol):
    """What a training step needs."""

    def forward(self, generator: torch.Generator) -> tuple[StageLogits, Tensor]:
        """Draw a batch and run the learning part: logits of all stages and labels [B, S, S]."""

    def close(self) -> None:
        """Give back files."""


class LiveBatches:
    """Augments and encodes in every step: for encoders that learn."""

    def __init__(self, network: SegmentationNetwork, draw: Draw, device: torch.device) -> None:
        self.network, self.draw, self.device = network, draw, device

    def forward(self, generator: torch.Generator) -> tuple[StageLogits, Tensor]:
        """See `Batches`."""
        items = self.draw.sampler.draw(self.draw.batch_size, generator)
        images, labels = self.draw.views(items, generator, self.device)
        return self.network(images.contiguous(memory_format=torch.channels_last), labels), labels

    def close(self) -> None:
        """Nothing to give back."""


class CachedBatches:
    """Reads kept features of a bank of views: for frozen encoders and frozen prefixes.

    View 0 of every slice is the slice itself, the others are augmented.
    """

    def __init__(
        self,
        split: SplitNetwork,
        draw: Draw,
        device: torch.device,
        generator: torch.Generator,
        *,
        capacity_bytes: int,
        parent: Path | None = None,
        enough: Callable[[int], bool] = lambda views: False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Encode the views, one of every slice after the other.

        Args:
            split: the network in evaluation mode, cut where its frozen part ends.
            draw: views.
            device: where the network is.
            generator: source of the augmentation.
            capacity_bytes: bound on the files.
            parent: folder for the files.
            enough: asked after each view of all slices with the number of views so far: whether that will do.
            progress: told after each group of views; may raise to stop.

        Raises:
            OutputError: if the disk is too full.
        """
        self.split, self.draw, self.device = split, draw, device
        shapes = tuple(split.shapes(draw.image_size, device))
        labels = (draw.image_size, draw.image_size)
        items = draw.sampler.items
        self.views = affordable_views(len(items), entry_bytes(shapes, labels), capacity_bytes=capacity_bytes)
        self._number = {item: number for number, item in enumerate(items)}
        self.cache = FeatureCache(self.views * len(items), shapes, labels, parent=parent)
        try:
            self._fill(items, generator, enough, progress)
        except BaseException:
            self.cache.close()
            raise

    def forward(self, generator: torch.Generator) -> tuple[StageLogits, Tensor]:
        """See `Batches`."""
        drawn = self.draw.sampler.draw(self.draw.batch_size, generator)
        views = torch.randint(self.views, (len(drawn),), generator=generator).tolist()
        entries = [view * len(self._number) + self._number[item] for view, item in zip(views, drawn)]
        kept, labels = self.cache.read(entries, self.device)
        cells = self._cells(labels, generator)
        if cells is not None:
            labels = cells.take_labels(labels)
        return self.split.learning_part(kept, labels, cells), labels

    def _cells(self, labels: Tensor, generator: torch.Generator) -> Cells | None:
        """Which part of the embeddings a step decodes; None where all of it is no more than that."""
        grid = (self.draw.image_size // STRIDE,) * 2
        if isinstance(self.split.network.head, CnnHead):
            return rectangle_cells(labels, grid, generator) if grid > RECTANGLE_CELLS else None
        if grid <= SCATTERED_CELLS:
            return None
        return scattered_cells(len(labels), grid, generator, labels.device)

    def close(self) -> None:
        """Remove the files."""
        self.cache.close()

    def _fill(
        self,
        items: Sequence[Item],
        generator: torch.Generator,
        enough: Callable[[int], bool],
        progress: Callable[[int, int], None],
    ) -> None:
        total = self.views * len(items)
        for view in range(self.views):
            for start in range(0, len(items), _ENCODED_AT_ONCE):
                group = items[start : start + _ENCODED_AT_ONCE]
                if view == 0:
                    images, labels = gather(self.draw.banks, group)
                else:
                    images, labels = self.draw.views(group, generator, self.device)
                kept = self.split.frozen_part(images.to(self.device))
                first = view * len(items) + start
                self.cache.write(first, kept, labels)
                progress(first + len(group), total)
            if enough(view + 1):
                self.views = view + 1
                return
