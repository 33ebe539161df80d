"""Bring the tensors of a SAM image encoder to another image size, as SAMed and H-SAM do it with SAM's 1024 pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from torch import Tensor
from torch.nn import functional as F

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.models.encoders.sam_vit import SamBlock, SamEncoder


def fit_encoder_tensors(tensors: Mapping[str, Tensor], encoder: SamEncoder, prefix: str = "") -> dict[str, Tensor]:
    """Resize what depends on the image size to the size of `encoder`; everything else is handed on as it is.

    Args:
        tensors: an encoder's tensors by name, of any image size.
        encoder: the encoder that they shall be loaded into.
        prefix: what stands before the encoder's own names, such as "image_encoder.".

    Raises:
        CheckpointError: if a tensor that has to be resized has a shape that no SAM encoder has.
    """
    global_blocks = [index for index, block in enumerate(encoder.blocks) if not cast(SamBlock, block).attn.windowed]
    return resize_encoder_tensors(
        tensors, grid_side=encoder.pos_embed.shape[1], global_blocks=global_blocks, prefix=prefix
    )


def resize_encoder_tensors(
    tensors: Mapping[str, Tensor], *, grid_side: int, global_blocks: Iterable[int], prefix: str = ""
) -> dict[str, Tensor]:
    """Resize the absolute positions, and the relative ones of the blocks with global attention.

    Windows keep their size, so the tables of the windowed blocks fit every image.

    Args:
        tensors: an encoder's tensors by name, of any image size.
        grid_side: tokens per side h of the target, its image size / 16.
        global_blocks: the encoder's blocks with global attention.
        prefix: what stands before the encoder's own names.

    Returns:
        A new dictionary with the same keys in the same order.

    Raises:
        CheckpointError: if a tensor that has to be resized has a shape that no SAM encoder has.
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
    """Relative positions [2n - 1, d] to [length, d], linearly along the rows."""
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
