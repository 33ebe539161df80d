"""Where a training step gets its views from: made on the fly, or from the kept results of a frozen encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from HSAMSegmentLib.models.heads.cnn import CnnHead
from HSAMSegmentLib.models.interface import SegmentationNetwork, StageLogits
from HSAMSegmentLib.training.data.augment import AugmentRule, augment
from HSAMSegmentLib.training.data.focus import WHOLE_VIEW_SHARE, Focus, find_focus
from HSAMSegmentLib.training.data.sampling import BalancedSampler, Item
from HSAMSegmentLib.training.data.slice_bank import SliceBank
from HSAMSegmentLib.training.features.adaptation import SplitNetwork
from HSAMSegmentLib.training.features.token_subset import (
    RECTANGLE_CELLS,
    Cells,
    rectangle_cells,
    scattered_cells,
    scattered_shape,
)

if TYPE_CHECKING:
    from HSAMSegmentLib.training.features.cached_features import KeptFeatures

STRIDE = 16


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

    def views(
        self,
        items: Sequence[Item],
        generator: torch.Generator,
        device: torch.device,
        *,
        focus: Focus | None = None,
        rule: AugmentRule | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One augmented view of each item on a device: images [B, 3, S, S], labels [B, S, S]; less with a focus.

        Args:
            items: of the sampler.
            generator: of all draws.
            device: that does the work.
            focus: the part of the slices to look at; all of them if None.
            rule: augmentation; the usual one if None.
        """
        images, labels = (tensor.to(device) for tensor in gather(self.banks, items))
        size = (self.image_size, self.image_size) if focus is None else focus.size
        centers = None if focus is None else torch.tensor([focus.centers_px[item.bank] for item in items])
        return augment(images, labels, rule or self.rule, size=size, generator=generator, centers_px=centers)


class Batches(Protocol):
    """What a training step needs."""

    def forward(self, generator: torch.Generator) -> tuple[StageLogits, Tensor]:
        """Draw a batch and run the learning part: logits of all stages and labels [B, S, S]."""

    def close(self) -> None:
        """Give back files."""


class LiveBatches:
    """Augments and encodes in every step: for encoders that learn.

    Most steps show the labelled region alone, some the whole slices (see `focus`).
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        draw: Draw,
        device: torch.device,
        rule_now: Callable[[], AugmentRule],
    ) -> None:
        """
        Args:
            network: in any mode.
            draw: views.
            device: where the network is.
            rule_now: augmentation at the present step.
        """
        self.network, self.draw, self.device, self.rule_now = network, draw, device, rule_now
        any_size = getattr(network.encoder, "any_size", False)
        self.focus = find_focus(draw.banks, draw.image_size) if any_size else None

    def forward(self, generator: torch.Generator) -> tuple[StageLogits, Tensor]:
        """See `Batches`."""
        items = self.draw.sampler.draw(self.draw.batch_size, generator)
        whole = float(torch.rand(1, generator=generator)) < WHOLE_VIEW_SHARE
        focus = None if whole else self.focus
        images, labels = self.draw.views(items, generator, self.device, focus=focus, rule=self.rule_now())
        return self.network(images.contiguous(memory_format=torch.channels_last), labels), labels

    def close(self) -> None:
        """Nothing to give back."""


class CachedBatches:
    """Reads kept features of a bank of views: for frozen encoders and frozen prefixes."""

    def __init__(self, split: SplitNetwork, draw: Draw, device: torch.device, kept: KeptFeatures) -> None:
        """
        Args:
            split: the network in evaluation mode, cut where its frozen part ends.
            draw: views.
            device: where the network is.
            kept: what the frozen part gave.
        """
        self.split, self.draw, self.device, self.kept = split, draw, device, kept
        self.sampler = draw.sampler.only(kept.kept_items)

    def forward(self, generator: torch.Generator) -> tuple[StageLogits, Tensor]:
        """See `Batches`."""
        drawn = self.sampler.draw(self.draw.batch_size, generator)
        kept, labels = self.kept.cache.read(self.kept.entries(drawn, generator), self.device)
        cells = self._cells(labels, generator)
        if cells is not None:
            labels = cells.take_labels(labels)
        return self.split.learning_part(kept, labels, cells), labels

    def close(self) -> None:
        """Remove the files."""
        self.kept.close()

    def _cells(self, labels: Tensor, generator: torch.Generator) -> Cells | None:
        """Which part of the embeddings a step decodes; None where all of it is no more than that."""
        grid = (self.draw.image_size // STRIDE,) * 2
        if isinstance(self.split.network.head, CnnHead):
            return rectangle_cells(labels, grid, generator) if grid > RECTANGLE_CELLS else None
        if scattered_shape(grid) == grid:
            return None
        return scattered_cells(len(labels), grid, generator, labels.device)
