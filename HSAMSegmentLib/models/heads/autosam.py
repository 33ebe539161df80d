"""AutoSAM's ViT head: SAM's mask decoder run once per class (Hu et al., arXiv 2306.13731)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from HSAMSegmentLib.models.heads.sam_decoder import (
    DecoderOutput,
    HypernetworkMlp,
    PositionalGrid,
    Upscaling,
    read_masks,
)
from HSAMSegmentLib.models.heads.two_way_transformer import TwoWayTransformer
from HSAMSegmentLib.models.interface import Features, StageLogits

MASK_TOKENS_PER_CLASS = 2


class AutoSamHead(nn.Module):
    """Features to the logits of one stage, at 4h.

    Each class has its own quality token and two mask tokens and shares everything else. The mask is read with the first
    mask token; the second takes part in the attention only.
    """

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
        self.num_channels = num_classes + 1
        self.positional_grid = PositionalGrid(embed_dim=embed_dim)
        self.transformer = TwoWayTransformer(embed_dim=embed_dim, num_heads=num_heads, mlp_dim=mlp_dim, depth=depth)
        self.iou_token = nn.Parameter(torch.randn(self.num_channels, embed_dim))
        self.mask_tokens = nn.Parameter(torch.randn(MASK_TOKENS_PER_CLASS * self.num_channels, embed_dim))
        channels = (embed_dim, embed_dim // 4, embed_dim // 8)
        self.upscaling = Upscaling(channels=channels, norms=(True, False), skip_channels=tuple(skip_channels)[:2])
        self.hypernetworks = nn.ModuleList(
            [HypernetworkMlp(in_dim=embed_dim, hidden_dim=embed_dim, out_dim=channels[-1], num_layers=3)]
        )
        self.iou_prediction_head = HypernetworkMlp(
            in_dim=embed_dim, hidden_dim=embed_dim, out_dim=MASK_TOKENS_PER_CLASS, num_layers=3
        )

    def _repeat(self, x: Tensor) -> Tensor:
        """Repeat for all classes: [B, ...] to [B * (K + 1), ...], classes of an image adjacent."""
        return x.repeat_interleave(self.num_channels, dim=0)

    def decode(self, features: Features) -> DecoderOutput:
        """Run the decoder per class: all inputs [B * (K + 1), ...], one mask each."""
        embedding = features.embedding
        grid = (embedding.shape[2], embedding.shape[3])
        image = self._repeat(embedding.flatten(2).transpose(1, 2))
        places = self.positional_grid(*grid).to(image.dtype)
        image_pe = places if len(places) == 1 else self._repeat(places)
        pairs = self.mask_tokens.unflatten(0, (self.num_channels, MASK_TOKENS_PER_CLASS))
        prompt = torch.cat([self.iou_token[:, None], pairs], dim=1).repeat(embedding.shape[0], 1, 1)
        tokens, image = self.transformer(prompt, image, image_pe)
        upscaled = self.upscaling(image.unflatten(1, grid), [self._repeat(skip) for skip in features.skips[:2]])
        logits = read_masks(self.hypernetworks, tokens[:, 1:], upscaled)
        return DecoderOutput(logits, tokens[:, 1:], tokens[:, 0], image, upscaled)

    def quality(self, output: DecoderOutput) -> Tensor:
        """Predicted quality of each mask [B * (K + 1), 1]; AutoSAM leaves it at SAM's values or at random ones."""
        result: Tensor = self.iou_prediction_head(output.quality_token)[:, :1]
        return result

    def forward(self, features: Features, labels: Tensor | None = None) -> StageLogits:
        """Features with an embedding [B, embed_dim, h, w] to logits [B, K + 1, 4h, 4w]; `labels` are not used."""
        logits = self.decode(features).logits
        return StageLogits((logits.view(-1, self.num_channels, *logits.shape[2:]),))
