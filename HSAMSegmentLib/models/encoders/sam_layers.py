"""Three layers of SAM's image encoder, with its tensor names (Kirillov et al., "Segment Anything", ICCV 2023)."""

from __future__ import annotations

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
        """Tokens with the channels last."""
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
    """Layer normalization over the channels of a map [B, channels, rows, columns], at each position by itself.

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
