"""Training batches that are augmented and encoded in every step.

Most show a crop around the labels, since a step on it costs a fraction of one on whole slices. Whole slices are mixed
in, so that the network also learns what is not an organ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from HSAMSegmentLib.models.interface import SegmentationNetwork, StageLogits
from HSAMSegmentLib.training import ranks
from HSAMSegmentLib.training.data.augment import AugmentRule, augment
from HSAMSegmentLib.training.data.cases import UNLABELED
from HSAMSegmentLib.training.data.sampling import BalancedSampler, Item
from HSAMSegmentLib.training.data.slice_bank import SliceBank

WHOLE_SLICE_SHARE = 0.25
_MARGIN = 1.3
_STEP = 32
_LEAST = 96


@dataclass(frozen=True)
class LabelCrop:
    """A crop around the labels.

    Attributes:
        size: rows and columns, multiples of 32 and no larger than the input.
        centers_px: center (column, row) of the labels in the input, for each bank.
    """

    size: tuple[int, int]
    centers_px: tuple[tuple[float, float], ...]


def find_label_crop(banks: Sequence[SliceBank], image_size: int) -> LabelCrop | None:
    """Find a crop that covers the labels of every bank, with a margin.

    Args:
        banks: the training cases.
        image_size: side S of the network's input.

    Returns:
        None if the labels fill the whole input, if there are none, or if slices have several tiles.
    """
    if any(bank.tile_count > 1 for bank in banks):
        return None
    boxes = [label_box(bank.labels[:, 0]) for bank in banks]
    known = [box for box in boxes if box is not None]
    if not known:
        return None
    rows, columns = (_crop_length(max(box[axis][1] - box[axis][0] for box in known), image_size) for axis in (0, 1))
    size = (rows, columns)
    if size == (image_size, image_size):
        return None
    middle = (image_size - 1) / 2
    centers = [((middle, middle) if box is None else (sum(box[1]) / 2, sum(box[0]) / 2)) for box in boxes]
    return LabelCrop(size, tuple(centers))


def label_box(labels: Tensor) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """First and last row and column with a label in any of the slices [n, S, S]; None without labels."""
    drawn = ((labels != 0) & (labels != UNLABELED)).any(dim=0)
    if not drawn.any():
        return None
    rows, cols = (torch.nonzero(drawn.any(dim=axis)).flatten() for axis in (1, 0))
    return (int(rows[0]), int(rows[-1])), (int(cols[0]), int(cols[-1]))


def _crop_length(extent: int, image_size: int) -> int:
    wanted = _STEP * math.ceil(max(_MARGIN * (extent + 1), _LEAST) / _STEP)
    return min(wanted, image_size)


def gather(banks: Sequence[SliceBank], items: Sequence[Item]) -> tuple[Tensor, Tensor]:
    """Collect the inputs [B, 3, S, S] and labels [B, S, S] of drawn items."""
    images = torch.cat([banks[item.bank].inputs([item.slice_index], [item.tile]) for item in items])
    labels = torch.cat([banks[item.bank].targets([item.slice_index], [item.tile]) for item in items])
    return images, labels


@dataclass(frozen=True)
class TrainingSet:
    """The training slices with their sampling and augmentation.

    Attributes:
        banks: the training cases.
        sampler: draws the slices.
        rule: augmentation.
        image_size: side of the network's input.
        batch_size: slices per step on each rank.
    """

    banks: tuple[SliceBank, ...]
    sampler: BalancedSampler
    rule: AugmentRule
    image_size: int
    batch_size: int

    @property
    def global_batch_size(self) -> int:
        """Slices per step on all ranks together."""
        return self.batch_size * ranks.world_size()

    def views(
        self,
        items: Sequence[Item],
        generator: torch.Generator,
        device: torch.device,
        *,
        crop: LabelCrop | None = None,
        rule: AugmentRule | None = None,
        noise_generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw one augmented view of each item: images [B, 3, S, S], labels [B, S, S]; smaller with a crop.

        Args:
            items: from the sampler.
            generator: source of all randomness.
            device: device to augment on.
            crop: the part of the slices to show; None for all of it.
            rule: augmentation; `self.rule` if None.
            noise_generator: see `augment`.
        """
        images, labels = (tensor.to(device) for tensor in gather(self.banks, items))
        size = (self.image_size, self.image_size) if crop is None else crop.size
        centers = None if crop is None else torch.tensor([crop.centers_px[item.bank] for item in items])
        return augment(
            images,
            labels,
            rule or self.rule,
            size=size,
            generator=generator,
            centers_px=centers,
            noise_generator=noise_generator,
        )


class Batches(Protocol):
    """A source of batches."""

    training_set: TrainingSet

    def forward(self, generator: torch.Generator) -> tuple[StageLogits, Tensor]:
        """Draw a batch and run the trained part: logits of all stages, and labels [B, S, S]."""

    def close(self) -> None:
        """Delete temporary files."""


class LiveBatches:
    """Augments and encodes in every step, for trained encoders.

    Most steps show a crop around the labels, some the whole slices (see `find_label_crop`).
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        training_set: TrainingSet,
        device: torch.device,
        rule_now: Callable[[], AugmentRule],
    ) -> None:
        """
        Args:
            network: in any mode.
            training_set: the slices.
            device: where the network is.
            rule_now: returns the augmentation of the current step.
        """
        self.network, self.training_set, self.device, self.rule_now = network, training_set, device, rule_now
        any_size = getattr(network.encoder, "any_size", False)
        # On GPUs, ranks need not draw the white noise of all of them on the CPU.
        draws_own_noise = ranks.world_size() > 1 and device.type == "cuda"
        self._noise = torch.Generator(device).manual_seed(ranks.rank()) if draws_own_noise else None
        self.crop = find_label_crop(training_set.banks, training_set.image_size) if any_size else None

    def forward(self, generator: torch.Generator) -> tuple[StageLogits, Tensor]:
        """See `Batches`."""
        items = ranks.part_of(self.training_set.sampler.draw(self.training_set.global_batch_size, generator))
        whole = float(torch.rand(1, generator=generator)) < WHOLE_SLICE_SHARE
        crop = None if whole else self.crop
        images, labels = self.training_set.views(
            items, generator, self.device, crop=crop, rule=self.rule_now(), noise_generator=self._noise
        )
        return self.network(images.contiguous(memory_format=torch.channels_last), labels), labels

    def close(self) -> None:
        """Nothing to delete."""
