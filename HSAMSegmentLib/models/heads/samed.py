"""The head of SAMed: SAM's mask decoder with one token per class (Zhang and Liu, arXiv 2304.13785)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from HSAMSegmentLib.models.heads.sam_decoder import PositionalGrid, SamDecoder
from HSAMSegmentLib.models.interface import Features, StageLogits


class SamedHead(nn.Module):
    """Features to the logits of one stage, at 4h."""

    def __init__(
        self,
        *,
        num_classes: int,
        embed_dim: int = 256,
        num_heads: int = 8,
        mlp_dim: int = 2048,
        depth: int = 2,
        skip_channels: Sequence[int] = (),
    ) -> None:
        """
        Args:
            num_classes: foreground classes K; logits have K + 1 channels, background first.
            embed_dim: width of the encoder's embedding, a multiple of 8.
            num_heads: heads of every attention; divides `embed_dim / 2`.
            mlp_dim: hidden width of the transformer's MLPs.
            depth: layers of the transformer.
            skip_channels: channels of the encoder's finer maps at 2h and 4h, one for each map to use.
        """
        super().__init__()
        self.positional_grid = PositionalGrid(embed_dim=embed_dim)
        self.no_mask = nn.Parameter(torch.randn(1, embed_dim))
        self.decoder = SamDecoder(
            num_masks=num_classes + 1,
            embed_dim=embed_dim,
            num_heads=num_heads,
            mlp_dim=mlp_dim,
            depth=depth,
            skip_channels=tuple(skip_channels),
        )

    def forward(self, features: Features, labels: Tensor | None = None) -> StageLogits:
        """Features with an embedding [B, embed_dim, h, w] to logits [B, K + 1, 4h, 4w]; `labels` are not used."""
        grid = (features.embedding.shape[2], features.embedding.shape[3])
        image = features.embedding.flatten(2).transpose(1, 2)
        image_pe = self.positional_grid(*grid).to(image.dtype)
        return StageLogits((self.decoder(image + self.no_mask, image_pe, grid, features.skips).logits,))
