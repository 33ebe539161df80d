"""MobileSAM's image encoder: TinyViT-5M without its last downsampling, with SAM's neck.

Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers", ECCV 2022; Zhang et al., "Faster
Segment Anything", arXiv 2306.14289. Tensors are named as in `mobile_sam.pt` below `image_encoder.`; the classifier in
that file (`norm_head`, `head`) plays no part in segmentation and is left out.

The encoder has no absolute positions, and its relative ones are local to windows, so the same weights work at every
image size that is a multiple of 16. MobileSAM itself supports only 1024 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from HSAMSegmentLib.models.encoders.sam_layers import Tile, cut, put, sam_neck, tiles


class TinyViT(nn.Module):
    """Images to an embedding with one vector per 16 x 16 pixels.

    Args:
        image_size: side S of the square input in pixels, a multiple of 16.
        embed_dims: width of the four stages.
        depths: blocks of the four stages; the first stage is convolutional, the others use attention.
        num_heads: attention heads of the four stages; the first entry is unused.
        window_sizes: side of the windows of the four stages; the first entry is unused.
        out_chans: channels of the embedding.
    """

    def __init__(
        self,
        *,
        image_size: int = 1024,
        embed_dims: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (2, 4, 5, 10),
        window_sizes: Sequence[int] = (7, 7, 14, 7),
        out_chans: int = 256,
    ) -> None:
        super().__init__()
        if image_size % 16:
            raise ValueError(f"The image size {image_size} is not a multiple of 16.")
        self.image_size = image_size
        self.out_chans = out_chans
        self.patch_embed = PatchEmbed(embed_dims[0])
        strides = (2, 2, 1)
        self.layers = nn.ModuleList()
        for index, (dim, depth) in enumerate(zip(embed_dims, depths)):
            if index == 0:
                blocks: list[nn.Module] = [MobileBlock(dim) for _ in range(depth)]
            else:
                blocks = [WindowBlock(dim, num_heads[index], window_sizes[index]) for _ in range(depth)]
            last = index == len(embed_dims) - 1
            self.layers.append(Stage(blocks, None if last else Reduction(dim, embed_dims[index + 1], strides[index])))
        self.neck = sam_neck(embed_dims[-1], out_chans)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, S, S] to embeddings [B, out_chans, S / 16, S / 16]."""
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"The encoder was built for {self.image_size} x {self.image_size} pixels, "
                f"not for {images.shape[-2]} x {images.shape[-1]}."
            )
        x = self.patch_embed(images)
        for layer in self.layers:
            x = layer(x)
        output: Tensor = self.neck(x)
        return output


class ConvNorm(nn.Module):
    """Convolution without bias and batch normalization, fused into one convolution for inference.

    Args:
        in_chans: channels of the input.
        out_chans: channels of the output.
        kernel_size: odd side of the kernel; padded so that only the stride changes the size of the map.
        stride: step of the kernel.
        groups: convolution groups.
    """

    def __init__(
        self, in_chans: int, out_chans: int, kernel_size: int = 1, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.c = nn.Conv2d(in_chans, out_chans, kernel_size, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_chans)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] to [B, out_chans, H / stride, W / stride], rounded up."""
        if self.training:
            output: Tensor = self.bn(self.c(x))
            return output
        mean, variance = cast(Tensor, self.bn.running_mean), cast(Tensor, self.bn.running_var)
        scale = self.bn.weight * torch.rsqrt(variance + self.bn.eps)
        shift = self.bn.bias - mean * scale
        weight = self.c.weight * scale[:, None, None, None]
        return F.conv2d(x, weight, shift, self.c.stride, self.c.padding, groups=self.c.groups)


class PatchEmbed(nn.Module):
    """Images [B, 3, S, S] to maps [B, dim, S / 4, S / 4] by two convolutions.

    Args:
        dim: channels of the map.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, dim // 2, 3, stride=2), nn.GELU(), ConvNorm(dim // 2, dim, 3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        """Embed the images."""
        output: Tensor = self.seq(x)
        return output


class Stage(nn.Module):
    """Blocks at one resolution, followed by downsampling.

    Args:
        blocks: modules from maps to maps of the same shape.
        downsample: module after the blocks; None for the last stage.
    """

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """[B, dim, H, W] to [B, dim of the next stage, H / stride, W / stride]."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class MobileBlock(nn.Module):
    """Inverted residual (Sandler et al., "MobileNetV2", CVPR 2018) with a GELU after the sum.

    Args:
        dim: channels of the map.
        expansion: hidden channels as a multiple of `dim`.
    """

    def __init__(self, dim: int, expansion: int = 4) -> None:
        super().__init__()
        hidden = dim * expansion
        self.conv1 = ConvNorm(dim, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, dim, H, W] to the same shape."""
        hidden = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(hidden))


class Reduction(nn.Module):
    """Change the channels and, with stride 2, halve the map.

    Args:
        in_chans: channels of the input.
        out_chans: channels of the output.
        stride: 1 or 2.
    """

    def __init__(self, in_chans: int, out_chans: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_chans, out_chans)
        self.conv2 = ConvNorm(out_chans, out_chans, 3, stride=stride, groups=out_chans)
        self.conv3 = ConvNorm(out_chans, out_chans)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] to [B, out_chans, H / stride, W / stride]."""
        output: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return output


class WindowBlock(nn.Module):
    """Attention inside windows, a depthwise convolution across them, and an MLP.

    Args:
        dim: channels of the map.
        num_heads: attention heads.
        window_size: side of a window.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.attn = WindowAttention(dim, num_heads, window_size)
        self.local_conv = ConvNorm(dim, dim, 3, groups=dim)
        self.mlp = FeedForward(dim, dim * mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        """[B, dim, H, W] to the same shape."""
        tokens = x.permute(0, 2, 3, 1)
        tokens = tokens + self.attn(tokens)
        tokens = self.local_conv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        output: Tensor = (tokens + self.mlp(tokens)).permute(0, 3, 1, 2)
        return output


class WindowAttention(nn.Module):
    """Self-attention inside windows with a bias that depends only on the distance in rows and in columns.

    Incomplete windows are padded with zero tokens *before* the normalization, as in TinyViT. All padded tokens have
    the same key and value, and their biases do not depend on the query's content, so one key stands for all of them
    (its bias is the logsumexp of theirs) and no query is computed for them.

    Args:
        dim: width of a token.
        num_heads: heads.
        window_size: side n of a window; `attention_biases` is [heads, n * n], indexed by row and column distance.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window_size**2))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, rows, columns, dim] to the same shape."""
        batch, rows, columns, dim = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, rows, columns, self.num_heads, -1)
        joined = qkv.new_empty(batch, rows, columns, self.num_heads, dim // self.num_heads)
        for tile in tiles(rows, columns, self.window_size):
            put(joined, tile, self._attend(cut(qkv, tile).flatten(0, 2).flatten(2, 3), tile))
        output: Tensor = self.proj(joined.flatten(3))
        return output

    def _attend(self, qkv: Tensor, tile: Tile) -> Tensor:
        """[windows, heads, tokens, 3 * d] to [windows, heads, tokens, d]."""
        q, k, v = qkv.chunk(3, dim=-1)
        bias = self._bias(tile).to(q.dtype)
        if tile.area < self.window_size**2:
            _, key, value = self._padding(qkv.dtype).expand(len(qkv), -1, 1, -1).chunk(3, dim=-1)
            k, v = torch.cat([k, key], dim=2), torch.cat([v, value], dim=2)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].expand(len(q), -1, -1, -1))

    def _padding(self, dtype: torch.dtype) -> Tensor:
        """Projection of a zero token: [1, heads, 1, 3 * d]."""
        output: Tensor = self.qkv(self.norm.bias).view(1, self.num_heads, 1, -1).to(dtype)
        return output

    def _bias(self, tile: Tile) -> Tensor:
        """[heads, tokens, tokens], with one more key if the tile's windows are incomplete."""
        side, rows, columns = self.window_size, tile.rows.size, tile.columns.size
        along = torch.arange(side, device=self.attention_biases.device)
        down, across = (along[:rows, None] - along).abs(), (along[:columns, None] - along).abs()
        distances = down[:, None, :, None] * side + across[None, :, None, :]
        # Slices in place of masks: a mask's count would have to be read back from a GPU at every call.
        bias = self.attention_biases[:, distances].flatten(1, 2)
        real = bias[..., :rows, :columns].flatten(-2)
        if tile.area == side**2:
            return real
        padded = torch.cat([bias[..., rows:, :].flatten(-2), bias[..., :rows, columns:].flatten(-2)], dim=-1)
        return torch.cat([real, torch.logsumexp(padded, dim=-1, keepdim=True)], dim=-1)


class FeedForward(nn.Module):
    """Normalization and two linear layers.

    Args:
        dim: width of a token.
        hidden_dim: width of the hidden layer.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] to the same shape."""
        output: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return output
