"""How much the background has to be sure of, so that structures come out as large as they were drawn.

A network that was taught from few scans under widely varied views draws its structures too large, most of all in other
scans: where it is unsure, the Dice loss rewards that. One number added to the background's logit undoes most of it
(Docs/teaching.md).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.training.augment import AugmentRule, augment
from HSAMSegmentLib.training.batches import gather
from HSAMSegmentLib.training.losses import UNLABELLED
from HSAMSegmentLib.training.sampling import Item
from HSAMSegmentLib.training.validation import ValidationSet
from HSAMSegmentLib.volumes.rules import PredictionRule

CANDIDATES = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_VIEWS = 96
_SHARE = 0.01
"""Part of a budget in minutes that it may take."""
_BATCH = 4
_PASSES = 4


def calibration_seconds(minutes: float | None) -> float:
    """How long it may take in a training of so many minutes; 0 for one of epochs, which has no bound."""
    return 60.0 * _SHARE * (minutes or 0.0)


def calibrated_background(
    network: SegmentationNetwork,
    held: Sequence[ValidationSet],
    *,
    num_classes: int,
    views: AugmentRule,
    rule: PredictionRule,
    device: torch.device,
    seconds: float | None,
) -> float:
    """The offset of the background's logit with the best Dice on views of slices that were not learned from.

    Args:
        network: in evaluation mode.
        held: these slices.
        num_classes: foreground classes K.
        views: how far views differ from slices.
        rule: which stages are read.
        device: where the network is.
        seconds: stop after so many, None for no bound.

    Returns:
        One of `CANDIDATES`; the smallest of those that are equally good, so 0 without slices.
    """
    began = time.monotonic()
    counts = torch.zeros(len(CANDIDATES), 3, num_classes)
    generator = torch.Generator().manual_seed(0)
    banks = [item.bank for item in held]
    for items in _batches(held):
        images, labels = (tensor.to(device) for tensor in gather(banks, items))
        images, labels = augment(images, labels, views, size=labels.shape[-2:], generator=generator)
        counts += _counts(_logits(network, images, rule), labels, num_classes).cpu()
        if seconds is not None and time.monotonic() - began > seconds:
            break
    overlap, found, drawn = counts.unbind(dim=1)
    known = drawn[0] > 0
    dice = (2 * overlap / (found + drawn).clamp(min=1))[:, known].mean(dim=1)
    return CANDIDATES[int(dice.argmax())] if bool(known.any()) else 0.0


def _batches(held: Sequence[ValidationSet]) -> Iterator[list[Item]]:
    """All held slices several times over, up to the bound."""
    once = [
        Item(number, index, tile)
        for number, item in enumerate(held)
        for index in item.slices
        for tile in range(item.bank.tile_count)
    ]
    every = max(1, -(-len(once) // MOST_VIEWS))
    items = (_PASSES * once[::every])[:MOST_VIEWS]
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


def _logits(network: SegmentationNetwork, images: Tensor, rule: PredictionRule) -> Tensor:
    """Mean [B, K + 1, S, S] of the stages that are read."""
    with torch.inference_mode():
        stages = network(images).stages
        read = stages[-1:] if rule.stages == "last" else stages
        size = images.shape[-2:]
        enlarged = [F.interpolate(stage.float(), size=size, mode="bilinear", align_corners=False) for stage in read]
        return torch.stack(enlarged).mean(dim=0)


def _counts(logits: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Pixels [candidates, (overlap, found, drawn), K] of each class; unlabelled ones count nowhere."""
    classes = torch.arange(1, num_classes + 1, device=labels.device)[:, None, None, None]
    counted, drawn = labels != UNLABELLED, labels == classes
    counts = []
    for offset in CANDIDATES:
        shifted = torch.cat([logits[:, :1] + offset, logits[:, 1:]], dim=1)
        found = (shifted.argmax(dim=1) == classes) & counted
        counts.append(torch.stack([part.sum(dim=(1, 2, 3)) for part in (found & drawn, found, drawn)]).float())
    return torch.stack(counts)
