"""Test-time augmentation: average the logits of rotated and scaled views of a network input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from HSAMSegmentLib.preprocess.rules import PLAIN_VIEW, View

Forward = Callable[[Tensor], Sequence[Tensor]]

_UNSEEN_WEIGHT = 1e-3
"""Weight of pixels outside a view: almost nothing, but enough where no view covers them."""


def mean_over_augmentations(forward: Forward, images: Tensor, views: Sequence[View]) -> list[Tensor]:
    """Average the logits of all stages over views of the images; a single plain view is passed through.

    Pixels outside a view, such as corners rotated out of it, get almost no weight there.

    Args:
        forward: network input [n, 3, S, S] to the logits [n, C, s, s] of each stage.
        images: network input [n, 3, S, S].
        views: (rotation in degrees, scale) of each; one or more.

    Returns:
        Logits [n, C, s, s] of each stage, aligned with `images`.
    """
    if tuple(views) == (PLAIN_VIEW,):
        return list(forward(images))
    found = [[seen_from(stage, view) for stage in forward(view_of(images, view))] for view in views]
    return [_weighted_mean(parts) for parts in zip(*found)]


def view_of(images: Tensor, view: View) -> Tensor:
    """Rotate images [n, C, S, S] counterclockwise and enlarge them around the center; bilinear, zero outside."""
    if view == PLAIN_VIEW:
        return images
    degrees, scale = view
    grid = _grid(images, -degrees, 1.0 / scale)
    return grid_sample(images, grid.expand(len(images), -1, -1, -1), mode="bilinear", align_corners=False)


def seen_from(logits: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """Map the logits of a view back to the plain image.

    Args:
        logits: [n, C, s, s] of the view.
        view: rotation in degrees and scale.

    Returns:
        Logits [n, C, s, s] aligned with the plain image, with border values outside the view, and the weight [s, s] of
        each pixel.
    """
    side = logits.shape[-1]
    if view == PLAIN_VIEW:
        return logits, logits.new_ones(side, side)
    grid = _grid(logits, view[0], view[1])
    inside = (grid[0].abs() <= 1.0).all(dim=-1)
    # Not with grid_sample's padding mode, which MPS lacks.
    nearest = grid.clamp(1.0 / side - 1.0, 1.0 - 1.0 / side)
    values = grid_sample(logits, nearest.expand(len(logits), -1, -1, -1), mode="bilinear", align_corners=False)
    return values, torch.where(inside, 1.0, _UNSEEN_WEIGHT).to(logits.dtype)


def _grid(images: Tensor, degrees: float, factor: float) -> Tensor:
    """Sampling grid [1, s, s, (x, y)] in -1 to 1 for an image rotated clockwise and shrunk by a factor."""
    cosine, sine = factor * math.cos(math.radians(degrees)), factor * math.sin(math.radians(degrees))
    turn = torch.tensor([[[cosine, sine, 0.0], [-sine, cosine, 0.0]]], device=images.device, dtype=images.dtype)
    return affine_grid(turn, [1, 1, *images.shape[-2:]], align_corners=False)


def _weighted_mean(parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    total = torch.zeros_like(parts[0][0])
    weights = torch.zeros_like(parts[0][1])
    for values, weight in parts:
        total, weights = total + values * weight, weights + weight
    return total / weights
