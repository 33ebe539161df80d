"""From image tokens to pixels: learned doublings of resolution, with finer feature maps where an encoder has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UpscalingStep(nn.Module):
    """A transposed 2x2 convolution of stride 2, the sum with a finer feature map, a layer norm, a GELU.

    Maps are channels-last, where the convolution is a matrix product followed by placing 2x2 pixels, and the layer
    norm over channels runs over contiguous memory. On a CPU, training takes less than half the time of the
    channels-first form, and inference no more (Testing/Benchmarks/pixel_decoder.py).
    """

    def __init__(self, *, in_channels: int, out_channels: int, norm: bool, skip_channels: int = 0) -> None:
        """
        Args:
            in_channels: channels of the coarse map.
            out_channels: channels of the map of twice the side.
            norm: whether a layer norm over channels comes before the GELU.
            skip_channels: channels of the finer feature map that is added before the norm (as SAM 2 does with its
                high resolution features, Ravi et al., 2024), 0 for none.
        """
        super().__init__()
        self.expand = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.norm = nn.LayerNorm(out_channels, eps=1e-6) if norm else nn.Identity()
        self.skip = nn.Conv2d(skip_channels, out_channels, kernel_size=1) if skip_channels else None

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Double the resolution.

        Args:
            x: [B, h, w, in_channels].
            skip: [B, skip_channels, 2h, 2w], needed if `skip_channels` was given, otherwise not looked at.

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
        """Add the product of the 1x1 convolution, without its bias, of a channels-first map to a channels-last one."""
        pixels = skip.flatten(2).transpose(1, 2)
        weight = convolution.weight.flatten(1).transpose(0, 1).expand(len(skip), -1, -1)
        return torch.baddbmm(x.flatten(1, 2), pixels, weight).view_as(x)


class Upscaling(nn.Module):
    """A row of upscaling steps."""

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
        """What the last step is given."""
        return self._through(self.steps[:-1], x, skips)

    def _through(self, steps: nn.ModuleList, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        for index, step in enumerate(steps):
            x = step(x, skips[index] if index < len(skips) else None)
        return x
