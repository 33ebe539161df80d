"""Several looks at one network input, turned and scaled, and the mean of what the network says to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from HSAMSegmentLib.preprocess.rules import PLAIN_VIEW, View

Forward = Callable[[Tensor], Sequence[Tensor]]

_UNSEEN_WEIGHT = 1e-3
"""Of a place that lies outside of a view: next to nothing, but enough where no view has it."""


def mean_over_augmentations(forward: Forward, images: Tensor, views: Sequence[View]) -> list[Tensor]:
    """Logits of all stages, averaged over views of the images; the plain view alone is not touched at all.

    A place that a view does not show, such as a corner that was turned out of it, has next to no weight there.

    Args:
        forward: network input [n, 3, S, S] to the logits [n, C, s, s] of each stage.
        images: network input [n, 3, S, S].
        views: (rotation in degrees, scale) of each; one or more.

    Returns:
        For each stage logits [n, C, s, s] that belong to `images`.
    """
    if tuple(views) == (PLAIN_VIEW,):
        return list(forward(images))
    found = [[seen_from(stage, view) for stage in forward(view_of(images, view))] for view in views]
    return [_weighted_mean(parts) for parts in zip(*found)]


def view_of(images: Tensor, view: View) -> Tensor:
    """Images [n, C, S, S] turned counterclockwise and enlarged around their center, zero outside; bilinear."""
    if view == PLAIN_VIEW:
        return images
    degrees, scale = view
    grid = _grid(images, -degrees, 1.0 / scale)
    return grid_sample(images, grid.expand(len(images), -1, -1, -1), mode="bilinear", align_corners=False)


def seen_from(logits: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """Bring the logits of a view back to the plain one.

    Args:
        logits: [n, C, s, s] of the view.
        view: rotation in degrees and scale.

    Returns:
        Logits [n, C, s, s] of the plain view, those of the view's border where it does not reach, and the weight
        [s, s] of each place.
    """
    side = logits.shape[-1]
    if view == PLAIN_VIEW:
        return logits, logits.new_ones(side, side)
    grid = _grid(logits, view[0], view[1])
    inside = (grid[0].abs() <= 1.0).all(dim=-1)
    # Not by the padding mode of grid_sample, which Apple's graphics lack.
    nearest = grid.clamp(1.0 / side - 1.0, 1.0 - 1.0 / side)
    values = grid_sample(logits, nearest.expand(len(logits), -1, -1, -1), mode="bilinear", align_corners=False)
    return values, torch.where(inside, 1.0, _UNSEEN_WEIGHT).to(logits.dtype)


def _grid(images: Tensor, degrees: float, factor: float) -> Tensor:
    """Where to look [1, s, s, (x, y)], in -1 to 1, for an image turned clockwise and reduced by a factor."""
    cosine, sine = factor * math.cos(math.radians(degrees)), factor * math.sin(math.radians(degrees))
    turn = torch.tensor([[[cosine, sine, 0.0], [-sine, cosine, 0.0]]], device=images.device, dtype=images.dtype)
    return affine_grid(turn, [1, 1, *images.shape[-2:]], align_corners=False)


def _weighted_mean(parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    total = torch.zeros_like(parts[0][0])
    weights = torch.zeros_like(parts[0][1])
    for values, weight in parts:
        total, weights = total + values * weight, weights + weight
    return total / weights
