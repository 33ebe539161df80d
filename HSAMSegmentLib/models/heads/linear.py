"""AutoSAM's smallest head: upscaling and a per-pixel MLP (Hu et al., arXiv 2306.13731)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from HSAMSegmentLib.models.heads.sam_decoder import Upscaling
from HSAMSegmentLib.models.interface import Features, StageLogits


class LinearHead(nn.Module):
    """Features to the logits of one stage, at 4h."""

    def __init__(
        self,
        *,
        num_classes: int,
        embed_dim: int = 256,
        skip_channels: Sequence[int] = (),
        rectified: bool = True,
    ) -> None:
        """
        Args:
            num_classes: foreground classes K; logits have K + 1 channels, background first.
            embed_dim: width of the encoder's embedding, a multiple of 8.
            skip_channels: channels of the encoder's finer maps at 2h and 4h, one for each map to use.
            rectified: apply a ReLU to the logits as in the official network, where a pixel without a positive logit is
                background and gives no gradient; leave it off for new models.
        """
        super().__init__()
        self.rectified = rectified
        fine = embed_dim // 8
        self.upscaling = Upscaling(
            channels=(embed_dim, embed_dim // 4, fine), norms=(True, False), skip_channels=tuple(skip_channels)[:2]
        )
        self.final = nn.Sequential(
            nn.Conv2d(fine, fine, kernel_size=1), nn.ReLU(), nn.Conv2d(fine, num_classes + 1, kernel_size=1)
        )

    def forward(self, features: Features, labels: Tensor | None = None) -> StageLogits:
        """Features with an embedding [B, embed_dim, h, w] to logits [B, K + 1, 4h, 4w]; `labels` are not used."""
        upscaled = self.upscaling(features.embedding.permute(0, 2, 3, 1), features.skips)
        logits = self.final(upscaled.permute(0, 3, 1, 2))
        return StageLogits((F.relu(logits) if self.rectified else logits,))
