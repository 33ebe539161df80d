"""Train the head on a subset of the image tokens, which makes steps on cached features faster.

Except for attention, all heads but the convolutional one process tokens (16 x 16 pixels each) one by one, so the head
can be given a subset, each token with its true position. The logits then differ from those of the whole embedding only
by attention over fewer tokens. PatchDropout (Liu et al., WACV 2023) and losses on sampled points (Mask2Former, Cheng et
al., CVPR 2022) use the same idea. One token is drawn from each tile of a coarse grid, so that all structures are seen
often.

A convolution needs neighboring tokens; its subset is one rectangle, usually around a labeled pixel.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from HSAMSegmentLib.models.interface import Features
from HSAMSegmentLib.training.data.cases import UNLABELED

RECTANGLE_TOKENS = (12, 12)
_LABELED_SHARE = 0.65
_LEAST_SIDE = 16
_SIDE_SHARE = 3 / 8


@dataclass(frozen=True)
class TokenSubset:
    """Some tokens of each embedding of a batch, arranged as a smaller grid.

    Attributes:
        rows: row of each token in the whole grid, int64 [B, r, c].
        columns: its column, int64 [B, r, c].
        grid: rows and columns of the whole grid.
    """

    rows: Tensor
    columns: Tensor
    grid: tuple[int, int]

    @property
    def index(self) -> Tensor:
        """Index of each token in the whole grid, row by row: int64 [B, r * c]."""
        return (self.rows * self.grid[1] + self.columns).flatten(1)

    def take(self, maps: Tensor) -> Tensor:
        """The parts [B, C, r * n, c * n] of the tokens, from maps [B, C, rows * n, columns * n]."""
        side = maps.shape[-1] // self.grid[1]
        tiled = maps.reshape(*maps.shape[:2], self.grid[0], side, self.grid[1], side)
        view = torch.arange(len(maps), device=maps.device)[:, None, None]
        taken: Tensor = tiled.permute(0, 2, 4, 1, 3, 5)[view, self.rows, self.columns]
        joined: Tensor = taken.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
        return joined

    def take_features(self, features: Features) -> Features:
        """`take` for an embedding and its finer maps."""
        return Features(self.take(features.embedding), tuple(self.take(skip) for skip in features.skips))

    def take_labels(self, labels: Tensor) -> Tensor:
        """`take` for labels [B, S, S]."""
        return self.take(labels[:, None])[:, 0]

    def placed(self, head: nn.Module) -> AbstractContextManager[Any]:
        """Within the context, the head uses the true positions of the tokens."""
        if not hasattr(head, "positional_grid"):
            return nullcontext()
        positional_grid: Any = head.positional_grid
        entered: AbstractContextManager[Any] = positional_grid.at(self.index, self.grid)
        return entered


def scattered_shape(grid: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of tokens that a step decodes: all of a small grid, part of a larger one."""
    rows, columns = (min(length, max(_LEAST_SIDE, int(_SIDE_SHARE * length))) for length in grid)
    return rows, columns


def scattered_subset(
    count: int, grid: tuple[int, int], generator: torch.Generator, device: torch.device
) -> TokenSubset:
    """Draw one token from each tile of a grid of `scattered_shape`, for each of `count` views.

    Args:
        count: views.
        grid: rows and columns of the embedding.
        generator: random generator on the CPU.
        device: device of the result.
    """
    shape = (count, *scattered_shape(grid))
    places = []
    for axis, length in enumerate(grid):
        tiles = shape[axis + 1]
        first = torch.arange(tiles).view((-1, 1) if axis == 0 else (1, -1))
        places.append(
            ((first + torch.rand(shape, generator=generator)) * (length / tiles)).long().clamp(max=length - 1)
        )
    return TokenSubset(places[0].to(device), places[1].to(device), grid)


def rectangular_subset(labels: Tensor, grid: tuple[int, int], generator: torch.Generator) -> TokenSubset:
    """Draw a rectangle of `RECTANGLE_TOKENS` for each view, usually around a labeled pixel.

    Args:
        labels: [B, S, S].
        grid: rows and columns of the embedding.
        generator: random generator on the CPU.
    """
    size = [min(length, most) for length, most in zip(grid, RECTANGLE_TOKENS)]
    draws = torch.rand(len(labels), 4, generator=generator).tolist()
    corners = [_corner(view, grid, size, draw) for view, draw in zip(labels, draws)]
    first = torch.tensor(corners, device=labels.device)
    rows = first[:, 0, None, None] + torch.arange(size[0], device=labels.device)[:, None]
    columns = first[:, 1, None, None] + torch.arange(size[1], device=labels.device)
    shape = (len(labels), *size)
    return TokenSubset(rows.expand(shape), columns.expand(shape), grid)


def _corner(labels: Tensor, grid: tuple[int, int], size: list[int], draw: list[float]) -> list[int]:
    """First row and column of a rectangle in one view, from four draws between 0 and 1."""
    corner = [int(draw[1 + axis] * (grid[axis] - size[axis] + 1)) for axis in (0, 1)]
    places = ((labels != 0) & (labels != UNLABELED)).nonzero()
    if len(places) and draw[0] < _LABELED_SHARE:
        middle = places[int(draw[3] * len(places))].tolist()
        token = [middle[axis] * grid[axis] // labels.shape[axis] for axis in (0, 1)]
        corner = [token[axis] - int(draw[1 + axis] * size[axis]) for axis in (0, 1)]
    return [max(0, min(corner[axis], grid[axis] - size[axis])) for axis in (0, 1)]
