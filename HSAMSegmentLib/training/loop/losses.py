"""Losses of H-SAM (Cheng et al., CVPR 2024) and AutoSAM (Hu et al., arXiv 2306.13731), sparse labels included.

Labels are class numbers [B, H, W] of any integer type. Pixels with any other value, such as `data.cases.UNLABELED`, are
excluded from the mean of the cross-entropy and from the sums of Dice. A batch without labeled pixels has loss zero.
With several ranks, the loss is that of the combined batch and the same on each rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from HSAMSegmentLib.training import ranks

OFFICIAL_SMOOTHING = 1e-5
DICE_SMOOTHING = 50.0


def hsam_loss(
    stages: Sequence[Tensor],
    labels: Tensor,
    *,
    last_weight: float,
    dice_weight: float = 0.9,
    smoothing: float = OFFICIAL_SMOOTHING,
) -> Tensor:
    """Loss of all stages of H-SAM, each at its own resolution.

    Args:
        stages: logits [B, T, s, s] of each stage, as in `StageLogits.stages`; one stage alone is weighted 1.
        labels: class numbers [B, S, S] at full resolution.
        last_weight: weight of the last stage, see `optimizer.hsam_last_stage_weight`; the others share the rest.
        dice_weight: see `stage_loss`.
        smoothing: see `stage_loss`.

    Returns:
        A scalar.
    """
    losses = [
        stage_loss(stage, reduced_labels(labels, stage.shape[-2:]), dice_weight=dice_weight, smoothing=smoothing)
        for stage in stages
    ]
    if len(losses) == 1:
        return losses[0]
    return (1 - last_weight) * torch.stack(losses[:-1]).mean() + last_weight * losses[-1]


def stage_loss(
    logits: Tensor, labels: Tensor, *, dice_weight: float = 0.9, smoothing: float = OFFICIAL_SMOOTHING
) -> Tensor:
    """H-SAM's loss of one stage: `(1 - dice_weight) * cross-entropy + dice_weight * Dice over all classes`.

    Args:
        logits: [B, T, h, w].
        labels: [B, h, w].
        dice_weight: weight of Dice, between 0 and 1.
        smoothing: smoothing of Dice. With the official value, a class missing from the batch costs 1 whatever is
            predicted, so nothing is learned from its false positives; `DICE_SMOOTHING` makes them count.
    """
    log_probabilities = logits.float().log_softmax(dim=1)
    belongs = class_masks(labels, logits.shape[1])
    dice = dice_terms(log_probabilities.exp(), belongs, smoothing=smoothing).mean()
    return (1 - dice_weight) * _cross_entropy(log_probabilities, belongs) + dice_weight * dice


def autosam_loss(logits: Tensor, labels: Tensor, *, undefined_is_nan: bool = False) -> Tensor:
    """AutoSAM's loss: cross-entropy plus Dice of the foreground classes.

    Classes with a Dice term of exactly zero are dropped from the mean. Labels may be finer than the logits: each logit
    pixel then belongs to every class by its share, which costs less than upsampling the logits.

    Args:
        logits: [B, T, h, w].
        labels: [B, n * h, n * w].
        undefined_is_nan: as in the official code, return NaN, which ruins the training, if no class is left (a batch of
            background, predicted perfectly). Otherwise the Dice term is zero then, its true value.
    """
    log_probabilities = logits.float().log_softmax(dim=1)
    belongs = class_shares(labels, logits.shape[1], logits.shape[-1])
    terms = dice_terms(log_probabilities.exp(), belongs, smoothing=1.0)[1:]
    kept = terms > 0
    count = kept.sum() if undefined_is_nan else kept.sum().clamp(min=1)
    return _cross_entropy(log_probabilities, belongs) + torch.where(kept, terms, 0).sum() / count


def class_masks(labels: Tensor, num_masks: int) -> Tensor:
    """One-hot classes of the pixels [B, h, w]: bool [B, T, h, w], all false for other label values."""
    classes = torch.arange(num_masks, device=labels.device, dtype=labels.dtype)
    return labels[:, None] == classes[:, None, None]


def class_shares(labels: Tensor, num_masks: int, columns: int) -> Tensor:
    """Fraction of each class in every coarser pixel.

    Args:
        labels: [B, n * h, n * columns].
        num_masks: T.
        columns: columns of the result.

    Returns:
        float [B, T, h, columns], or bool if the resolution is the same.
    """
    masks = class_masks(labels, num_masks)
    factor = labels.shape[-1] // columns
    return masks if factor == 1 else F.avg_pool2d(masks.float(), factor)


def dice_terms(probabilities: Tensor, belongs: Tensor, *, smoothing: float) -> Tensor:
    """One minus Dice per class over the whole batch, with squared probabilities (V-Net, Milletari et al., 3DV 2016).

    Args:
        probabilities: [B, T, h, w].
        belongs: from `class_masks` or `class_shares` [B, T, h, w].
        smoothing: added to the numerator and to the denominator.

    Returns:
        [T].
    """
    probabilities = probabilities * belongs.any(dim=1, keepdim=True)
    overlap, size = ranks.sum_over_ranks(
        (probabilities * belongs).sum(dim=(0, 2, 3)),
        probabilities.square().sum(dim=(0, 2, 3)) + belongs.sum(dim=(0, 2, 3)),
    )
    return 1 - (2 * overlap + smoothing) / (size + smoothing)


def reduced_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Downsample labels to a stage's resolution by nearest neighbor with aligned corners, as in the official training.

    Args:
        labels: [B, H, W].
        size: rows and columns.
    """
    for dim, count in ((1, size[0]), (2, size[1])):
        if labels.shape[dim] != count:
            labels = labels.index_select(dim, _nearest(labels.shape[dim], count, labels.device))
    return labels


def _nearest(source: int, target: int, device: torch.device) -> Tensor:
    """Index of the source sample nearest to each target sample, with aligned ends; halves round up."""
    steps = torch.arange(target, device=device)
    return (2 * steps * (source - 1) + target - 1) // (2 * max(target - 1, 1))


def _cross_entropy(log_probabilities: Tensor, belongs: Tensor) -> Tensor:
    """Mean over labeled pixels; as a sum over masks, which is deterministic on GPUs, too."""
    total, count = ranks.sum_over_ranks((belongs * log_probabilities).sum(), belongs.sum())
    return -total / count.clamp(min=1)
