"""SAM's mask decoder without prompts and with one mask token per class, and the stages around it.

These are the positional encoding of the embedding's grid, and the learned upsampling from image tokens to pixels, with
finer feature maps if the encoder has them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from HSAMSegmentLib.models.heads.two_way_transformer import TwoWayTransformer


class UpscalingStep(nn.Module):
    """A transposed 2x2 convolution of stride 2, the sum with a finer feature map, a layer norm, a GELU.

    Maps are channels-last, so that the convolution is a matrix product followed by placing 2x2 pixels, and the layer
    norm runs over contiguous memory. On a CPU, training takes less than half the time of the channels-first form, and
    inference no more (Testing/Benchmarks/pixel_decoder.py).
    """

    def __init__(self, *, in_channels: int, out_channels: int, norm: bool, skip_channels: int = 0) -> None:
        """
        Args:
            in_channels: channels of the coarse map.
            out_channels: channels of the map at twice the side.
            norm: whether a layer norm over channels precedes the GELU.
            skip_channels: channels of the finer feature map added before the norm (as SAM 2 does with its
                high-resolution features, Ravi et al., 2024); 0 for none.
        """
        super().__init__()
        self.expand = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.norm = nn.LayerNorm(out_channels, eps=1e-6) if norm else nn.Identity()
        self.skip = nn.Conv2d(skip_channels, out_channels, kernel_size=1) if skip_channels else None

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Double the resolution.

        Args:
            x: [B, h, w, in_channels].
            skip: [B, skip_channels, 2h, 2w], required with `skip_channels`, otherwise ignored.

        Returns:
            [B, 2h, 2w, out_channels].
        """
        batch, rows, columns, _ = x.shape
        weight = self.expand.weight.permute(2, 3, 1, 0).flatten(0, 2)
        bias = cast(Tensor, self.expand.bias)
        if self.skip is not None:
            bias = bias + cast(Tensor, self.skip.bias)
        x = F.linear(x, weight, bias.repeat(4))
        x = x.view(batch, rows, columns, 2, 2, -1).transpose(2, 3).reshape(batch, 2 * rows, 2 * columns, -1)
        if self.skip is not None and skip is not None:
            x = self._with_skip(x, skip, self.skip)
        return F.gelu(self.norm(x))

    def _with_skip(self, x: Tensor, skip: Tensor, convolution: nn.Conv2d) -> Tensor:
        """Add a 1x1 convolution, without its bias, of a channels-first map to a channels-last one."""
        pixels = skip.flatten(2).transpose(1, 2)
        weight = convolution.weight.flatten(1).transpose(0, 1).expand(len(skip), -1, -1)
        return torch.baddbmm(x.flatten(1, 2), pixels, weight).view_as(x)


class Upscaling(nn.Module):
    """A sequence of upscaling steps."""

    def __init__(self, *, channels: Sequence[int], norms: Sequence[bool], skip_channels: Sequence[int] = ()) -> None:
        """
        Args:
            channels: before the first step and after each of them.
            norms: whether each step has a layer norm.
            skip_channels: channels of the finer feature maps, one per step from the first on; may be shorter.
        """
        super().__init__()
        skips = [*skip_channels, *[0] * len(norms)]
        self.steps = nn.ModuleList(
            UpscalingStep(in_channels=channels[i], out_channels=channels[i + 1], norm=norm, skip_channels=skips[i])
            for i, norm in enumerate(norms)
        )

    def forward(self, x: Tensor, skips: Sequence[Tensor] = ()) -> Tensor:
        """[B, h, w, channels[0]] to [B, h * 2**steps, w * 2**steps, channels[-1]]; `skips` coarsest first."""
        return self._through(self.steps, x, skips)

    def before_last(self, x: Tensor, skips: Sequence[Tensor] = ()) -> Tensor:
        """The input of the last step."""
        return self._through(self.steps[:-1], x, skips)

    def _through(self, steps: nn.ModuleList, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        for index, step in enumerate(steps):
            x = step(x, skips[index] if index < len(skips) else None)
        return x


class HypernetworkMlp(nn.Module):
    """Linear layers with ReLUs in between."""

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
    """Output of a mask decoder.

    Attributes:
        logits: [B, T, H, W], one channel per class, background first.
        tokens: the mask tokens after the transformer [B, T, C].
        quality_token: the token that mask quality is predicted from [B, C].
        image: image tokens after the transformer [B, N, C].
        upscaled: channels-last map that masks are read from [B, H, W, channels].
    """

    logits: Tensor
    tokens: Tensor
    quality_token: Tensor
    image: Tensor
    upscaled: Tensor


def read_masks(hypernetworks: nn.ModuleList, tokens: Tensor, upscaled: Tensor) -> Tensor:
    """Turn each mask token into a linear classifier of pixels (MaskFormer, Cheng et al., NeurIPS 2021).

    Args:
        hypernetworks: one MLP per token.
        tokens: [B, T, C].
        upscaled: [B, H, W, channels].

    Returns:
        logits [B, T, H, W].
    """
    batch, rows, columns, _ = upscaled.shape
    classifiers = mask_classifiers(hypernetworks, tokens)
    return (classifiers @ upscaled.flatten(1, 2).transpose(1, 2)).view(batch, -1, rows, columns)


def mask_classifiers(hypernetworks: nn.ModuleList, tokens: Tensor) -> Tensor:
    """Apply to each mask token [B, T, C] its own MLP: [B, MLPs, channels].

    All MLPs run through a layer together, since one alone is far too small to keep any device busy.
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
            mlp_dim: hidden width of the transformer's MLPs.
            depth: layers of the transformer.
            cross_first: order of the transformer's sublayers, see `TwoWayBlock`.
            skip_channels: channels of the encoder's finer maps at 2h and 4h, one for each map to use.
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
    """Encodes the cell positions of a grid (Tancik et al., NeurIPS 2020, as used by SAM, Kirillov et al., ICCV 2023).

    The frequencies are drawn once and never trained, but networks depend on the ones they were trained with: they
    belong to the weights.
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
        """Within the context, encode only some cells of a grid.

        Args:
            cells: cell indices in row-major order [B, n].
            grid: rows and columns of the grid.
        """
        self._cells, self._grid = cells, grid
        try:
            yield
        finally:
            self._cells = None

    def forward(self, rows: int, columns: int) -> Tensor:
        """Encode the centers of all cells in row-major order, always in float32.

        Returns:
            [1, rows * columns, embed_dim], or inside `at` [B, n, embed_dim] for the given cells.
        """
        if self._cells is not None:
            return self._encoded(*self._grid)[0][self._cells]
        return self._encoded(rows, columns)

    def _encoded(self, rows: int, columns: int) -> Tensor:
        matrix = self.matrix.float()
        y = (torch.arange(rows, device=matrix.device, dtype=torch.float32) + 0.5) / rows * 2 - 1
        x = (torch.arange(columns, device=matrix.device, dtype=torch.float32) + 0.5) / columns * 2 - 1
        # Elementwise products, since autocast would run a matrix product in half precision.
        phase = 2 * math.pi * (x[None, :, None] * matrix[0] + y[:, None, None] * matrix[1])
        return torch.cat([phase.sin(), phase.cos()], dim=-1).flatten(0, 1)[None]
