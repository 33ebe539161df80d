"""The head of H-SAM: two decoders, the second guided by the first (Cheng et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from HSAMSegmentLib.models.heads.hsam_decoders import ClassGate, RefiningDecoder, class_weights, token_map
from HSAMSegmentLib.models.heads.sam_decoder import DecoderOutput, PositionalGrid, SamDecoder
from HSAMSegmentLib.models.interface import Features, StageLogits


class HsamHead(nn.Module):
    """Features to the logits of both stages, at 4h and at 16h.

    Form "released" is what the official weights need: it doubles the second decoder's image embedding. Form "paper"
    replaces that constant by a gate over positions (see `ClassGate`).
    """

    def __init__(
        self,
        *,
        num_classes: int,
        form: str = "released",
        embed_dim: int = 256,
        num_heads: int = 8,
        mlp_dim: int = 2048,
        depth: int = 2,
        dropout: float = 0.2,
        embedding_noise: float = 0.2,
        label_noise: float = 0.2,
        gate_dim: int = 64,
        skip_channels: Sequence[int] = (),
    ) -> None:
        """
        Args:
            num_classes: foreground classes K; logits have K + 1 channels, background first.
            form: "released" or "paper".
            embed_dim: width of the encoder's embedding, a multiple of 16.
            num_heads: heads of every attention; divides `embed_dim / 2`.
            mlp_dim: hidden width of the transformers' MLPs.
            depth: layers of each transformer.
            dropout: dropout on the second decoder's token-to-image results in training.
            embedding_noise: standard deviation of the training noise on the second decoder's embedding, as a fraction
                of the embedding's range.
            label_noise: see `ClassGate`; "paper" only.
            gate_dim: see `ClassGate`; "paper" only.
            skip_channels: channels of the encoder's finer maps at 2h, 4h, 8h and 16h, one for each map to use; the
                official networks use none.
        """
        super().__init__()
        shared: dict[str, Any] = {
            "num_masks": num_classes + 1,
            "embed_dim": embed_dim,
            "num_heads": num_heads,
            "mlp_dim": mlp_dim,
            "depth": depth,
            "skip_channels": tuple(skip_channels),
        }
        self.embedding_noise = embedding_noise
        self.positional_grid = PositionalGrid(embed_dim=embed_dim)
        self.no_mask = nn.Parameter(torch.randn(1, embed_dim))
        self.decoder1 = SamDecoder(cross_first=True, **shared)
        self.decoder2 = RefiningDecoder(dropout=dropout, **shared)
        self.gate = (
            ClassGate(num_masks=num_classes + 1, embed_dim=embed_dim, gate_dim=gate_dim, label_noise=label_noise)
            if form == "paper"
            else None
        )

    def _disturbed(self, image: Tensor) -> Tensor:
        """In training, add noise scaled by the embedding's range over the whole batch."""
        if not self.training or self.embedding_noise == 0:
            return image
        return image + torch.randn_like(image) * (self.embedding_noise * (image.max() - image.min()))

    def _gate(self, first: DecoderOutput, weights: Tensor, grid: tuple[int, int], labels: Tensor | None) -> Tensor:
        """The gate [B, N, 1]: each position is scaled by 1 plus this."""
        gate = cast(ClassGate, self.gate)
        if labels is None:
            cells = weights.argmax(dim=1)
        else:
            nearest = F.interpolate(labels[:, None].float(), size=grid, mode="nearest-exact")
            cells = nearest.flatten(1).long()
        output: Tensor = gate(token_map(first.tokens, first.image), cells)
        return output

    def forward(self, features: Features, labels: Tensor | None = None) -> StageLogits:
        """Decode both stages.

        Args:
            features: embedding [B, embed_dim, h, w] and, with `skip_channels`, finer maps.
            labels: [B, H, W] at any resolution, for the paper form's noise in training; values that are not a class
                (unlabeled pixels) get no noise. Without labels the first stage's prediction is used.

        Returns:
            logits [B, K + 1, 4h, 4w] and [B, K + 1, 16h, 16w].
        """
        grid = (features.embedding.shape[2], features.embedding.shape[3])
        image = features.embedding.flatten(2).transpose(1, 2)
        image_pe = self.positional_grid(*grid).to(image.dtype)
        first = self.decoder1(image + self.no_mask, image_pe, grid, features.skips)
        weights = class_weights(first.logits)
        prompted = self._disturbed(image) + self.no_mask
        gate = 1 if self.gate is None else self._gate(first, weights, grid, labels)
        second = self.decoder2.logits(prompted * (1 + gate), image_pe, grid, weights, first.upscaled, features.skips)
        return StageLogits((first.logits, second))
