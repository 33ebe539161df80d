"""SAM's positional encoding of the embedding's grid: sines and cosines of random spatial frequencies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class PositionalGrid(nn.Module):
    """Encodes where each cell of a grid lies (Tancik et al., NeurIPS 2020, as used by SAM, Kirillov et al., ICCV 2023).

    The frequencies are drawn once and never trained, but networks are trained with the ones they have: they belong to
    the weights.
    """

    matrix: Tensor

    def __init__(self, *, embed_dim: int) -> None:
        """
        Args:
            embed_dim: width of the encoding, an even number.
        """
        super().__init__()
        self.register_buffer("matrix", torch.randn(2, embed_dim // 2))
        self._cells: Tensor | None = None
        self._grid = (0, 0)

    @contextmanager
    def at(self, cells: Tensor, grid: tuple[int, int]) -> Iterator[None]:
        """While entered, encode some cells of a grid instead of a whole grid.

        Args:
            cells: their numbers, row by row [B, n].
            grid: rows and columns of the grid.
        """
        self._cells, self._grid = cells, grid
        try:
            yield
        finally:
            self._cells = None

    def forward(self, rows: int, columns: int) -> Tensor:
        """Encode the centers of all cells, row by row, always in float32.

        Returns:
            [1, rows * columns, embed_dim], or inside of `at` [B, n, embed_dim] of the cells that were named there.
        """
        if self._cells is not None:
            return self._encoded(*self._grid)[0][self._cells]
        return self._encoded(rows, columns)

    def _encoded(self, rows: int, columns: int) -> Tensor:
        matrix = self.matrix.float()
        y = (torch.arange(rows, device=matrix.device, dtype=torch.float32) + 0.5) / rows * 2 - 1
        x = (torch.arange(columns, device=matrix.device, dtype=torch.float32) + 0.5) / columns * 2 - 1
        # Products rather than a matrix product: autocast would compute that one in half precision.
        phase = 2 * math.pi * (x[None, :, None] * matrix[0] + y[:, None, None] * matrix[1])
        return torch.cat([phase.sin(), phase.cos()], dim=-1).flatten(0, 1)[None]
