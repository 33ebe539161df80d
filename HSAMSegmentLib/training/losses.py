"""Losses of H-SAM (Cheng et al., CVPR 2024) and AutoSAM (Hu et al., arXiv 2306.13731), sparse labels included.

Labels are class numbers [B, H, W] of any integer type. Pixels labelled `UNLABELLED` count nowhere: neither in the
cross-entropy's mean nor in a sum of Dice. A batch without any labelled pixel has loss zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

UNLABELLED = 255


def hsam_loss(
    stages: Sequence[Tensor],
    labels: Tensor,
    *,
    last_weight: float,
    dice_weight: float = 0.9,
) -> Tensor:
    """Loss of all stages of H-SAM, each at its own resolution.

    Args:
        stages: logits [B, T, s, s] of each stage, as in `StageLogits.stages`; one stage alone is weighted 1.
        labels: class numbers [B, S, S] at full resolution.
        last_weight: weight of the last stage, see `schedules.hsam_last_stage_weight`; the others share the rest.
        dice_weight: see `stage_loss`.

    Returns:
        A scalar.
    """
    losses = [stage_loss(stage, reduced_labels(labels, stage.shape[-2:]), dice_weight=dice_weight) for stage in stages]
    if len(losses) == 1:
        return losses[0]
    return (1 - last_weight) * torch.stack(losses[:-1]).mean() + last_weight * losses[-1]


def stage_loss(logits: Tensor, labels: Tensor, *, dice_weight: float = 0.9) -> Tensor:
    """H-SAM's loss of one stage: `(1 - dice_weight) * cross-entropy + dice_weight * Dice over all classes`.

    Args:
        logits: [B, T, h, w].
        labels: [B, h, w].
        dice_weight: weight of Dice, between 0 and 1.
    """
    log_probabilities, labels = logits.float().log_softmax(dim=1), labels.long()
    dice = dice_terms(log_probabilities.exp(), labels, smoothing=1e-5).mean()
    return (1 - dice_weight) * _cross_entropy(log_probabilities, labels) + dice_weight * dice


def autosam_loss(logits: Tensor, labels: Tensor, *, undefined_is_nan: bool = False) -> Tensor:
    """AutoSAM's loss: cross-entropy plus Dice of the foreground classes.

    Classes whose Dice term is exactly zero are dropped from the mean.

    Args:
        logits: [B, T, h, w].
        labels: [B, h, w].
        undefined_is_nan: what the official code does where no class is left (a batch of background, predicted
            perfectly): the loss is not a number, and training is lost. Otherwise Dice is then zero, which it is.
    """
    log_probabilities, labels = logits.float().log_softmax(dim=1), labels.long()
    terms = dice_terms(log_probabilities.exp(), labels, smoothing=1.0)[1:]
    kept = terms > 0
    count = kept.sum() if undefined_is_nan else kept.sum().clamp(min=1)
    return _cross_entropy(log_probabilities, labels) + torch.where(kept, terms, 0).sum() / count


def dice_terms(probabilities: Tensor, labels: Tensor, *, smoothing: float) -> Tensor:
    """One minus Dice of each class over the whole batch, probabilities squared (V-Net, Milletari et al., 3DV 2016).

    Args:
        probabilities: [B, T, h, w].
        labels: [B, h, w].
        smoothing: added to the numerator and to the denominator.

    Returns:
        [T].
    """
    probabilities = probabilities * (labels != UNLABELLED)[:, None]
    classes = torch.arange(probabilities.shape[1], device=labels.device)
    belongs = labels[:, None] == classes[:, None, None]
    overlap = (probabilities * belongs).sum(dim=(0, 2, 3))
    size = probabilities.square().sum(dim=(0, 2, 3)) + belongs.sum(dim=(0, 2, 3))
    return 1 - (2 * overlap + smoothing) / (size + smoothing)


def reduced_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Labels at a stage's resolution by nearest neighbor between aligned corners, as the official training does.

    Args:
        labels: [B, H, W].
        size: rows and columns.
    """
    for dim, count in ((1, size[0]), (2, size[1])):
        if labels.shape[dim] != count:
            labels = labels.index_select(dim, _nearest(labels.shape[dim], count, labels.device))
    return labels


def _nearest(source: int, target: int, device: torch.device) -> Tensor:
    """Index of the source sample nearest to each target sample, first on first and last on last; halves round up."""
    steps = torch.arange(target, device=device)
    return (2 * steps * (source - 1) + target - 1) // (2 * max(target - 1, 1))


def _cross_entropy(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """Mean over labelled pixels."""
    total = F.nll_loss(log_probabilities, labels, ignore_index=UNLABELLED, reduction="sum")
    return total / (labels != UNLABELLED).sum().clamp(min=1)
