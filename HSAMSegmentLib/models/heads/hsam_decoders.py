"""The second decoder of H-SAM: it refines what the first one found, at full resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from HSAMSegmentLib.models.heads.pixel_logits import upscaled_logits
from HSAMSegmentLib.models.heads.sam_decoder import DecoderOutput, HypernetworkMlp, mask_classifiers, read_masks
from HSAMSegmentLib.models.heads.two_way_transformer import TwoWayTransformer
from HSAMSegmentLib.models.heads.upscaling import Upscaling, UpscalingStep


def class_weights(logits: Tensor) -> Tensor:
    """How much each cell of the embedding belongs to each class, according to the first stage.

    The logits are reduced by bilinear interpolation, which at a factor of four is the mean of the central 2x2 pixels of
    each 4x4; written so, its gradient is the same on every run on a GPU, too.

    Args:
        logits: of the first stage [B, T, 4h, 4w].

    Returns:
        [B, T, h * w], soft-maxed over the classes.
    """
    central = logits.unflatten(3, (-1, 4)).unflatten(2, (-1, 4))[:, :, :, 1:3, :, 1:3]
    output: Tensor = central.mean(dim=(3, 5)).softmax(dim=1).flatten(2)
    return output


class RefiningDecoder(nn.Module):
    """H-SAM's second decoder (Cheng et al., CVPR 2024).

    Its tokens look only at what the first stage takes for their class (mask cross-attention), and its masks are read
    from the upscaled embeddings of both decoders, merged and brought to the resolution of the input (hierarchical
    pixel decoder).
    """

    def __init__(
        self,
        *,
        num_masks: int,
        embed_dim: int = 256,
        num_heads: int = 8,
        mlp_dim: int = 2048,
        depth: int = 2,
        dropout: float = 0.2,
        skip_channels: Sequence[int] = (),
    ) -> None:
        """
        Args:
            num_masks: T, classes plus background.
            embed_dim: width of the embedding and of all tokens, a multiple of 16.
            num_heads: heads of every attention; divides `embed_dim / 2`.
            mlp_dim: hidden width of the transformer's perceptrons.
            depth: layers of the transformer.
            dropout: of the tokens-to-image results, in training.
            skip_channels: channels of the encoder's finer maps at 2h, 4h, 8h and 16h, as many as are to be used.
        """
        super().__init__()
        self.transformer = TwoWayTransformer(
            embed_dim=embed_dim,
            num_heads=num_heads,
            mlp_dim=mlp_dim,
            depth=depth,
            cross_first=True,
            cross_downsample=1,
            dropout=dropout,
        )
        self.mask_tokens = nn.Parameter(torch.randn(num_masks, embed_dim))
        fine, finest = embed_dim // 8, embed_dim // 16
        self.upscaling = Upscaling(
            channels=(embed_dim, embed_dim // 4, fine), norms=(True, False), skip_channels=skip_channels[:2]
        )
        self.skip_connect = Upscaling(
            channels=(2 * fine, fine, finest), norms=(True, True), skip_channels=skip_channels[2:]
        )
        self.hypernetworks = nn.ModuleList(
            HypernetworkMlp(in_dim=embed_dim, hidden_dim=embed_dim, out_dim=finest, num_layers=5)
            for _ in range(num_masks)
        )
        self.iou_prediction_head = HypernetworkMlp(
            in_dim=embed_dim, hidden_dim=embed_dim, out_dim=num_masks, num_layers=3
        )

    def forward(
        self,
        image: Tensor,
        image_pe: Tensor,
        grid: tuple[int, int],
        weights: Tensor,
        first_upscaled: Tensor,
        skips: Sequence[Tensor] = (),
    ) -> DecoderOutput:
        """Decode all masks at sixteen times the resolution of the embedding.

        Args:
            image: image tokens [B, rows * columns, C].
            image_pe: their positions [1, rows * columns, C].
            grid: rows and columns of the embedding.
            weights: of each class at each image token [B, T, rows * columns], from `class_weights`.
            first_upscaled: upscaled embedding of the first decoder [B, 4 rows, 4 columns, C / 8].
            skips: finer feature maps of the encoder, coarsest first.
        """
        tokens, image, joined = self._joined(image, image_pe, grid, weights, first_upscaled, skips)
        merged = self.skip_connect(joined, skips[2:])
        logits = read_masks(self.hypernetworks, tokens, merged)
        return DecoderOutput(logits, tokens, tokens[:, 0], image, merged)

    def logits(
        self,
        image: Tensor,
        image_pe: Tensor,
        grid: tuple[int, int],
        weights: Tensor,
        first_upscaled: Tensor,
        skips: Sequence[Tensor] = (),
    ) -> Tensor:
        """The logits of `forward` alone, [B, T, 16 rows, 16 columns], faster where a CPU does not train."""
        last = cast(UpscalingStep, self.skip_connect.steps[-1])
        if torch.is_grad_enabled() or image.device.type != "cpu" or last.skip is not None:
            return cast(Tensor, self(image, image_pe, grid, weights, first_upscaled, skips).logits)
        tokens, _, joined = self._joined(image, image_pe, grid, weights, first_upscaled, skips)
        before = self.skip_connect.before_last(joined, skips[2:])
        return upscaled_logits(last, before, mask_classifiers(self.hypernetworks, tokens))

    def _joined(
        self,
        image: Tensor,
        image_pe: Tensor,
        grid: tuple[int, int],
        weights: Tensor,
        first_upscaled: Tensor,
        skips: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, image tokens, and the upscaled embeddings of both decoders side by side."""
        tokens, image = self.transformer(self.mask_tokens[None], image, image_pe, weights)
        upscaled = self.upscaling(image.unflatten(1, grid), skips[:2])
        return tokens, image, torch.cat([upscaled, first_upscaled], dim=-1)

    def quality(self, output: DecoderOutput) -> Tensor:
        """Predicted quality of each mask [B, T]; official training leaves it untrained."""
        result: Tensor = self.iou_prediction_head(output.quality_token)
        return result
