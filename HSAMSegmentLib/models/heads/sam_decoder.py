"""SAM's mask decoder without prompts, one mask token per class, and its positional encoding of the embedding's grid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from HSAMSegmentLib.models.heads.two_way_transformer import TwoWayTransformer
from HSAMSegmentLib.models.heads.upscaling import Upscaling


class HypernetworkMlp(nn.Module):
    """Linear layers with a ReLU between each two."""

    def __init__(self, *, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int) -> None:
        super().__init__()
        widths = [in_dim] + [hidden_dim] * (num_layers - 1) + [out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_dim] to [..., out_dim]."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        output: Tensor = self.layers[-1](x)
        return output


class DecoderOutput(NamedTuple):
    """What a mask decoder computes.

    Attributes:
        logits: [B, T, H, W], one channel per class, background first.
        tokens: the mask tokens after the transformer [B, T, C].
        quality_token: the token the quality of the masks is predicted from [B, C].
        image: image tokens after the transformer [B, N, C].
        upscaled: channels-last map the masks were read from [B, H, W, channels].
    """

    logits: Tensor
    tokens: Tensor
    quality_token: Tensor
    image: Tensor
    upscaled: Tensor


def read_masks(hypernetworks: nn.ModuleList, tokens: Tensor, upscaled: Tensor) -> Tensor:
    """Turn each mask token into a linear classifier of pixels (MaskFormer, Cheng et al., NeurIPS 2021).

    Args:
        hypernetworks: one perceptron per token.
        tokens: [B, T, C].
        upscaled: [B, H, W, channels].

    Returns:
        logits [B, T, H, W].
    """
    batch, rows, columns, _ = upscaled.shape
    classifiers = mask_classifiers(hypernetworks, tokens)
    return (classifiers @ upscaled.flatten(1, 2).transpose(1, 2)).view(batch, -1, rows, columns)


def mask_classifiers(hypernetworks: nn.ModuleList, tokens: Tensor) -> Tensor:
    """Apply to each mask token [B, T, C] the perceptron of its own: [B, perceptrons, channels].

    All perceptrons go through a layer together, since each alone is far too small to keep any device busy.
    """
    x = tokens[:, : len(hypernetworks)].transpose(0, 1)
    layers = list(zip(*(net.layers for net in hypernetworks)))
    for index, layer in enumerate(layers):
        weights = torch.stack([linear.weight for linear in layer]).transpose(1, 2)
        x = torch.baddbmm(torch.stack([linear.bias for linear in layer])[:, None], x, weights)
        x = x if index == len(layers) - 1 else F.relu(x)
    return x.transpose(0, 1)


class SamDecoder(nn.Module):
    """Mask decoder of SAM (Kirillov et al., ICCV 2023) with T mask tokens and all T masks returned."""

    def __init__(
        self,
        *,
        num_masks: int,
        embed_dim: int = 256,
        num_heads: int = 8,
        mlp_dim: int = 2048,
        depth: int = 2,
        cross_first: bool = False,
        skip_channels: Sequence[int] = (),
    ) -> None:
        """
        Args:
            num_masks: T, classes plus background.
            embed_dim: width of the embedding and of all tokens, a multiple of 8.
            num_heads: heads of every attention; divides `embed_dim / 2`.
            mlp_dim: hidden width of the transformer's perceptrons.
            depth: layers of the transformer.
            cross_first: order of the transformer's sublayers, see `TwoWayBlock`.
            skip_channels: channels of the encoder's finer maps at 2h and 4h, if it has them and they are to be used.
        """
        super().__init__()
        self.transformer = TwoWayTransformer(
            embed_dim=embed_dim, num_heads=num_heads, mlp_dim=mlp_dim, depth=depth, cross_first=cross_first
        )
        self.iou_token = nn.Parameter(torch.randn(1, embed_dim))
        self.mask_tokens = nn.Parameter(torch.randn(num_masks, embed_dim))
        channels = (embed_dim, embed_dim // 4, embed_dim // 8)
        self.upscaling = Upscaling(channels=channels, norms=(True, False), skip_channels=skip_channels[:2])
        self.hypernetworks = nn.ModuleList(
            HypernetworkMlp(in_dim=embed_dim, hidden_dim=embed_dim, out_dim=channels[-1], num_layers=3)
            for _ in range(num_masks)
        )
        self.iou_prediction_head = HypernetworkMlp(
            in_dim=embed_dim, hidden_dim=embed_dim, out_dim=num_masks, num_layers=3
        )

    def forward(
        self, image: Tensor, image_pe: Tensor, grid: tuple[int, int], skips: Sequence[Tensor] = ()
    ) -> DecoderOutput:
        """Decode all masks at four times the resolution of the embedding.

        Args:
            image: image tokens [B, rows * columns, C].
            image_pe: their positions [1, rows * columns, C].
            grid: rows and columns of the embedding.
            skips: finer feature maps of the encoder, coarsest first.
        """
        prompt = torch.cat([self.iou_token, self.mask_tokens])[None]
        tokens, image = self.transformer(prompt, image, image_pe)
        upscaled = self.upscaling(image.unflatten(1, grid), skips)
        logits = read_masks(self.hypernetworks, tokens[:, 1:], upscaled)
        return DecoderOutput(logits, tokens[:, 1:], tokens[:, 0], image, upscaled)

    def quality(self, output: DecoderOutput) -> Tensor:
        """Predicted quality of each mask [B, T] (SAM trains this to be the IoU; H-SAM and SAMed do not train it)."""
        result: Tensor = self.iou_prediction_head(output.quality_token)
        return result


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
