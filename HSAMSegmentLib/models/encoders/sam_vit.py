"""SAM's image encoder: a plain vision transformer with windowed and global attention (Kirillov et al., ICCV 2023).

Tensors are named as in SAM's checkpoints below `image_encoder.`, and outputs equal SAM's to rounding; the attention is
our own (see `attention`).

`resize_encoder_tensors` adapts these tensors to another image size, as SAMed and H-SAM do with SAM's 1024 pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.models.encoders.attention import GridAttention
from HSAMSegmentLib.models.encoders.sam_layers import GeluMlp, PatchProjection, sam_neck
from HSAMSegmentLib.models.sizes import SAM_SIZES

__all__ = ["SAM_SIZES", "SamBlock", "SamEncoder"]

_TOKENS_AT_ONCE = 1024
"""Tokens that a CPU takes through a block at once: enough for fast products, few enough for its cache."""


class SamEncoder(nn.Module):
    """Images to an embedding with one vector per patch.

    Args:
        image_size: side S of the square input in pixels, a multiple of the patch size.
        embed_dim: width C of a token.
        depth: number of blocks.
        num_heads: attention heads per block.
        global_attn_indexes: blocks whose attention spans the whole image; the others attend inside windows.
        out_chans: channels of the embedding.
        window_size: side of a window in tokens.
        patch_size: side of a patch in pixels.
        mlp_ratio: hidden width of the MLPs as a multiple of C.
    """

    def __init__(
        self,
        *,
        image_size: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        global_attn_indexes: Sequence[int],
        out_chans: int = 256,
        window_size: int = 14,
        patch_size: int = 16,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"The image size {image_size} is not a multiple of the patch size {patch_size}.")
        self.image_size = image_size
        self.out_chans = out_chans
        grid = image_size // patch_size
        self.patch_embed = PatchProjection(patch_size, embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, embed_dim))
        self.blocks = nn.ModuleList(
            SamBlock(
                dim=embed_dim,
                num_heads=num_heads,
                mlp_ratio=mlp_ratio,
                grid_side=grid if index in global_attn_indexes else window_size,
                windowed=index not in global_attn_indexes,
            )
            for index in range(depth)
        )
        self.neck = sam_neck(embed_dim, out_chans)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, S, S] to embeddings [B, out_chans, S / patch, S / patch]."""
        return self.forward_suffix(self.forward_prefix(images, 0), 0)

    def forward_prefix(self, images: Tensor, blocks: int) -> Tensor:
        """Patch embedding, positions and the first `blocks` blocks: [B, 3, S, S] to tokens [B, h, h, C].

        A frozen prefix yields the same tokens for the same image, so fine-tuning can cache them.
        """
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"The encoder was built for {self.image_size} x {self.image_size} pixels, "
                f"not for {images.shape[-2]} x {images.shape[-1]}."
            )
        tokens = (self.patch_embed(images) + self.pos_embed).contiguous()
        for block in self.blocks[:blocks]:
            tokens = block(tokens)
        output: Tensor = tokens
        return output

    def forward_suffix(self, tokens: Tensor, blocks: int) -> Tensor:
        """Blocks from index `blocks` on, and the neck: tokens [B, h, h, C] to embeddings [B, out_chans, h, h]."""
        for block in self.blocks[blocks:]:
            tokens = block(tokens)
        output: Tensor = self.neck(tokens.permute(0, 3, 1, 2))
        return output


class SamBlock(nn.Module):
    """Attention and MLP, each pre-norm and with a residual.

    Args:
        dim: width of a token.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
        grid_side: side of the window, or of the whole grid for global attention.
        windowed: whether attention stays inside windows.
    """

    def __init__(self, *, dim: int, num_heads: int, mlp_ratio: float, grid_side: int, windowed: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = GridAttention(dim=dim, num_heads=num_heads, grid_side=grid_side, windowed=windowed)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = GeluMlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, rows, columns, dim] to tokens of the same shape."""
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return self._perceive(self._attend(x))
        output = x.new_empty(x.shape)
        for part in self._independent_parts(x.shape):
            attended = self._attend(x[part]).flatten(0, 2).split(_TOKENS_AT_ONCE)
            for tokens, target in zip(attended, output[part].flatten(0, 2).split(_TOKENS_AT_ONCE)):
                target.copy_(self._perceive(tokens))
        return output

    def _attend(self, x: Tensor) -> Tensor:
        output: Tensor = x + self.attn(self.norm1(x))
        return output

    def _perceive(self, x: Tensor) -> Tensor:
        output: Tensor = x + self.mlp(self.norm2(x))
        return output

    def _independent_parts(self, shape: torch.Size) -> Iterator[tuple[slice, slice]]:
        """Parts of the batch that do not attend to each other: images, or rows of windows."""
        images, rows, columns, _ = shape
        together = max(1, _TOKENS_AT_ONCE // (rows * columns))
        height = rows
        if self.attn.windowed:
            height = self.attn.grid_side * max(1, _TOKENS_AT_ONCE // (self.attn.grid_side * columns))
        if rows * columns <= _TOKENS_AT_ONCE:
            height = rows
        for image in range(0, images, together):
            for row in range(0, rows, height):
                yield slice(image, image + together), slice(row, row + height)


def fit_encoder_tensors(tensors: Mapping[str, Tensor], encoder: SamEncoder, prefix: str = "") -> dict[str, Tensor]:
    """Resize the tensors that depend on the image size to that of `encoder`; pass on all others unchanged.

    Args:
        tensors: an encoder's tensors by name, of any image size.
        encoder: the encoder to load them into.
        prefix: prefix of the encoder's names, such as "image_encoder.".

    Raises:
        CheckpointError: if a tensor to resize has a shape that no SAM encoder has.
    """
    global_blocks = [index for index, block in enumerate(encoder.blocks) if not cast(SamBlock, block).attn.windowed]
    return resize_encoder_tensors(
        tensors, grid_side=encoder.pos_embed.shape[1], global_blocks=global_blocks, prefix=prefix
    )


def resize_encoder_tensors(
    tensors: Mapping[str, Tensor], *, grid_side: int, global_blocks: Iterable[int], prefix: str = ""
) -> dict[str, Tensor]:
    """Resize absolute positions, and relative positions of the blocks with global attention.

    Windows keep their size, so the tables of windowed blocks fit every image.

    Args:
        tensors: an encoder's tensors by name, of any image size.
        grid_side: tokens per side h of the target, its image size / 16.
        global_blocks: the encoder's blocks with global attention.
        prefix: prefix of the encoder's names.

    Returns:
        A new dictionary with the same keys in the same order.

    Raises:
        CheckpointError: if a tensor to resize has a shape that no SAM encoder has.
    """
    tables = {
        f"{prefix}blocks.{index}.attn.rel_pos_{axis}": 2 * grid_side - 1 for index in global_blocks for axis in "hw"
    }
    resized = dict(tensors)
    for key, tensor in tensors.items():
        if key == f"{prefix}pos_embed":
            resized[key] = _resize_positions(key, tensor, grid_side)
        elif key in tables:
            resized[key] = _resize_table(key, tensor, tables[key])
    return resized


def _resize_positions(key: str, positions: Tensor, side: int) -> Tensor:
    """Absolute positions [1, n, n, C] to [1, side, side, C]."""
    if positions.ndim != 4 or positions.shape[0] != 1 or positions.shape[1] != positions.shape[2]:
        raise CheckpointError(_wrong_shape(key, positions, "[1, n, n, C]"))
    if positions.shape[1] == side:
        return positions
    resized = F.interpolate(positions.permute(0, 3, 1, 2), size=(side, side), mode="bilinear", align_corners=False)
    return resized.permute(0, 2, 3, 1).contiguous()


def _resize_table(key: str, table: Tensor, length: int) -> Tensor:
    """Relative positions [2n - 1, d] to [length, d], interpolated linearly along the rows."""
    if table.ndim != 2 or table.shape[0] % 2 == 0:
        raise CheckpointError(_wrong_shape(key, table, "[2n - 1, d]"))
    if table.shape[0] == length:
        return table
    size = (length, table.shape[1])
    return F.interpolate(table[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def _wrong_shape(key: str, tensor: Tensor, expected: str) -> str:
    return (
        f"The tensor {key} has the shape {list(tensor.shape)} where a SAM image encoder has {expected}; "
        "the file is not a SAM checkpoint or is damaged."
    )
