"""Our compact image encoder: a convolutional stem, and attention where the map is small (in the spirit of TinyViT).

Plain 3 x 3 convolutions work at strides 4 to 16, where they run near a CPU's peak (depthwise ones do not);
attention and wide MLPs work at stride 32, where a 256-pixel slice has 64 tokens. A feature pyramid (Lin et al., CVPR
2017) brings the wide context back to stride 16 and to the finer maps that are output as skips, because a boundary at
1.25 mm cannot be drawn from stride 16 alone. There are no learned positions: the encoder runs at every image size.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from HSAMSegmentLib.models.interface import Features

NORM_GROUPS = 8


def _norm(channels: int) -> nn.GroupNorm:
    """Group normalization: independent of the batch size, with no running statistics to go stale."""
    return nn.GroupNorm(NORM_GROUPS, channels)


class ConvNormAct(nn.Sequential):
    """3 x 3 convolution, group normalization, ReLU: [B, C, h, w] to [B, D, ceil(h / stride), ceil(w / stride)]."""

    def __init__(self, *, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            _norm(out_channels),
            nn.ReLU(inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around an identity (He et al., CVPR 2016)."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.first = ConvNormAct(in_channels=channels, out_channels=channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to the same shape."""
        return F.relu(x + self.norm(self.second(self.first(x))), inplace=True)


class TokenBlock(nn.Module):
    """Pre-norm attention and MLP over all positions of a small map (Dosovitskiy et al., ICLR 2021).

    A leading depthwise 3 x 3 convolution encodes positions without a table, so that any size works (Chu et al., ICLR
    2023).
    """

    def __init__(self, *, dim: int, num_heads: int, mlp_ratio: float = 3.0) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.num_heads = num_heads
        self.position = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to the same shape."""
        batch, dim, rows, cols = x.shape
        tokens = (x + self.position(x)).flatten(2).transpose(1, 2)
        tokens = tokens + self._attend(self.norm1(tokens))
        tokens = tokens + self.mlp(self.norm2(tokens))
        output: Tensor = tokens.transpose(1, 2).reshape(batch, dim, rows, cols)
        return output

    def _attend(self, tokens: Tensor) -> Tensor:
        batch, count, dim = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, count, dim))
        return output


def _stage(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    """Halve the resolution, then `blocks` residual blocks."""
    halve = ConvNormAct(in_channels=in_channels, out_channels=channels, stride=2)
    return nn.Sequential(halve, *(ResidualBlock(channels=channels) for _ in range(blocks)))


class PyramidStep(nn.Module):
    """Upsample a coarse map by two and merge it with the finer map of the downward path."""

    def __init__(self, *, coarse_channels: int, fine_channels: int, channels: int) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(coarse_channels, channels, 1)
        self.fine = nn.Conv2d(fine_channels, channels, 1)
        self.mix = ConvNormAct(in_channels=channels, out_channels=channels)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Coarse [B, C, h, w] and fine [B, D, 2h, 2w] to [B, channels, 2h, 2w]."""
        wide = F.interpolate(self.coarse(coarse), size=fine.shape[-2:], mode="bilinear", align_corners=False)
        output: Tensor = self.mix(wide + self.fine(fine))
        return output


class CompactEncoder(nn.Module):
    """Images to an embedding at stride 16 with skips at strides 8, 4 and 2.

    Args:
        out_chans: channels of the embedding.
        stem_channels: channels at stride 2, which is one convolution.
        stage_channels: channels at strides 4, 8 and 16.
        stage_blocks: residual blocks at strides 4, 8 and 16.
        token_dim: channels at stride 32.
        token_blocks: attention blocks at stride 32.
        token_heads: attention heads.
        skip_channels: channels of the skips at strides 8, 4 and 2.
    """

    any_size = True

    def __init__(
        self,
        *,
        out_chans: int = 128,
        stem_channels: int = 24,
        stage_channels: tuple[int, int, int] = (64, 128, 192),
        stage_blocks: tuple[int, int, int] = (1, 1, 1),
        token_dim: int = 256,
        token_blocks: int = 3,
        token_heads: int = 8,
        skip_channels: tuple[int, int, int] = (64, 64, 24),
    ) -> None:
        super().__init__()
        fine, middle, coarse = stage_channels
        self.out_chans = out_chans
        self.skip_channels = tuple(skip_channels)
        self.stem = ConvNormAct(in_channels=3, out_channels=stem_channels, stride=2)
        self.stage4 = _stage(stem_channels, fine, stage_blocks[0])
        self.stage8 = _stage(fine, middle, stage_blocks[1])
        self.stage16 = _stage(middle, coarse, stage_blocks[2])
        self.halve = ConvNormAct(in_channels=coarse, out_channels=token_dim, stride=2)
        self.tokens = nn.Sequential(
            *(TokenBlock(dim=token_dim, num_heads=token_heads) for _ in range(token_blocks)),
        )
        self.token_norm = _norm(token_dim)
        self.widen = nn.Conv2d(token_dim, coarse, 1)
        self.neck = nn.Sequential(
            ConvNormAct(in_channels=coarse, out_channels=out_chans),
            nn.Conv2d(out_chans, out_chans, 1, bias=False),
            _norm(out_chans),
        )
        widths = (out_chans, *skip_channels)
        self.pyramid = nn.ModuleList(
            PyramidStep(coarse_channels=coarser, fine_channels=finer, channels=channels)
            for coarser, finer, channels in zip(widths, (middle, fine, stem_channels), skip_channels)
        )

    def forward(self, images: Tensor) -> Features:
        """Images [B, 3, S, S] in [0, 1] to embedding [B, out_chans, S/16, S/16], skips [B, C, S/8, S/8], ...

        Any multiple of 16 works for rows and columns; the image need not be square.
        """
        half = self.stem(images - 0.5)
        quarter = self.stage4(half)
        eighth = self.stage8(quarter)
        sixteenth = self.stage16(eighth)
        wide = self.widen(self.token_norm(self.tokens(self.halve(sixteenth))))
        wide = F.interpolate(wide, size=sixteenth.shape[-2:], mode="bilinear", align_corners=False)
        embedding = self.neck(sixteenth + wide)
        skips = [embedding]
        for step, finer in zip(self.pyramid, (eighth, quarter, half)):
            skips.append(step(skips[-1], finer))
        return Features(embedding, tuple(skips[1:]))

    def initialize(self) -> None:
        """Initialize convolutions by He's rule and residual paths near zero; call before training from scratch."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.groups == 1:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, ResidualBlock):
                nn.init.constant_(module.norm.weight, 0.25)
            elif isinstance(module, TokenBlock):
                with torch.no_grad():
                    module.proj.weight.mul_(0.25)
                    cast(nn.Linear, module.mlp[2]).weight.mul_(0.25)
