"""Parts of SAM's image encoder that other encoders share: projection, MLP, norm, neck, and token windows.

Tensors have SAM's names (Kirillov et al., "Segment Anything", ICCV 2023). Incomplete windows at the end of a row are
not padded.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class PatchProjection(nn.Module):
    """Images [B, 3, H, W] to one token per patch [B, H / patch, W / patch, dim].

    Args:
        patch: side of a patch in pixels.
        dim: width of a token.
    """

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        """Project patches; channels last."""
        tokens: Tensor = self.proj(images)
        return tokens.permute(0, 2, 3, 1)


class GeluMlp(nn.Module):
    """Two linear layers with a GELU between them, on the last dimension.

    Args:
        dim: width of the input and of the output.
        hidden: width between the layers.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] to the same shape."""
        output: Tensor = self.lin2(nn.functional.gelu(self.lin1(x)))
        return output


class ChannelNorm(nn.Module):
    """Layer normalization over the channels of a map [B, channels, rows, columns], independently at each position.

    Args:
        channels: number of channels.
        eps: added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, rows, columns] to the same shape."""
        centered = x - x.mean(dim=1, keepdim=True)
        variance = centered.square().mean(dim=1, keepdim=True)
        normalized = centered / (variance + self.eps).sqrt()
        return self.weight[:, None, None] * normalized + self.bias[:, None, None]


def sam_neck(dim: int, out_chans: int) -> nn.Sequential:
    """SAM's neck: maps [B, dim, h, h] to [B, out_chans, h, h] (Kirillov et al., "Segment Anything", ICCV 2023).

    Args:
        dim: channels of the last block.
        out_chans: channels of the embedding.
    """
    return nn.Sequential(
        nn.Conv2d(dim, out_chans, kernel_size=1, bias=False),
        ChannelNorm(out_chans),
        nn.Conv2d(out_chans, out_chans, kernel_size=3, padding=1, bias=False),
        ChannelNorm(out_chans),
    )


class TokenRun(NamedTuple):
    """`count` adjacent windows of `size` tokens each along one axis."""

    start: int
    count: int  # type: ignore[assignment]  # hides tuple's method, which a run does not need
    size: int

    @property
    def span(self) -> slice:
        """Number of tokens in the run."""
        return slice(self.start, self.start + self.count * self.size)


class Tile(NamedTuple):
    """A block of equally shaped windows: a run of rows times a run of columns."""

    rows: TokenRun
    columns: TokenRun

    @property
    def area(self) -> int:
        """Number of tokens in one window."""
        return self.rows.size * self.columns.size


def tiles(rows: int, columns: int, side: int) -> list[Tile]:
    """Cut a grid into windows of `side` x `side` from the top left; yields at most four different shapes."""
    return [Tile(row_run, column_run) for row_run in _runs(rows, side) for column_run in _runs(columns, side)]


def cut(tokens: Tensor, tile: Tile) -> Tensor:
    """View the windows of a tile: [B, rows, columns, H, d] to [B, vertical, horizontal, H, size, size, d]."""
    (_, vertical, height), (_, horizontal, width) = tile
    part = tokens[:, tile.rows.span, tile.columns.span]
    output: Tensor = (
        part.unflatten(1, (vertical, height)).unflatten(3, (horizontal, width)).permute(0, 1, 3, 5, 2, 4, 6)
    )
    return output


def put(tokens: Tensor, tile: Tile, windows: Tensor) -> None:
    """Write windows back into the grid, in the layout of `cut` or with all windows along one axis."""
    place = cut(tokens, tile)
    place.copy_(windows.reshape(place.shape))


def _runs(length: int, side: int) -> list[TokenRun]:
    full, rest = divmod(length, side)
    runs = [TokenRun(0, full, side), TokenRun(full * side, 1, rest)]
    return [run for run in runs if run.count and run.size]
