"""Low-rank adapters (LoRA, Hu et al., ICLR 2022) on the q and v projections of SAM's image encoder, as in SAMed and
H-SAM: rank r, no scaling factor, no bias, k untouched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.models.encoders.sam_vit import SamBlock, SamEncoder

ADAPTER_NAMES = ("lora_q_down", "lora_q_up", "lora_v_down", "lora_v_up")


class AdaptedQkv(nn.Linear):
    """A `qkv` projection whose q and v thirds get ``up @ (down @ x)`` added.

    `weight` and `bias` keep their names, and `bias` is still the projection of a zero token.

    Args:
        qkv: the projection to adapt, dim to 3 * dim; its tensors are reused, not copied.
        rank: rank of both adapters.
    """

    def __init__(self, qkv: nn.Linear, rank: int) -> None:
        dim = qkv.in_features
        super().__init__(dim, qkv.out_features, device="meta")
        self.weight, self.bias = qkv.weight, qkv.bias
        place: dict[str, Any] = {"device": qkv.weight.device, "dtype": qkv.weight.dtype}
        self.lora_q_down = nn.Parameter(torch.empty(rank, dim, **place))
        self.lora_q_up = nn.Parameter(torch.empty(dim, rank, **place))
        self.lora_v_down = nn.Parameter(torch.empty(rank, dim, **place))
        self.lora_v_up = nn.Parameter(torch.empty(dim, rank, **place))
        self.reset_adapters()

    @property
    def rank(self) -> int:
        """Rank of both adapters."""
        return self.lora_q_down.shape[0]

    def reset_adapters(self) -> None:
        """Initialize the adapters to have no effect: Kaiming-uniform (slope sqrt(5)) down, zero up."""
        for down, up in ((self.lora_q_down, self.lora_q_up), (self.lora_v_down, self.lora_v_up)):
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))
            nn.init.zeros_(up)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [..., dim] to concatenated q, k and v [..., 3 * dim]."""
        dim = self.in_features
        qkv = super().forward(x)
        low = F.linear(x, torch.cat([self.lora_q_down, self.lora_v_down]))
        qkv[..., :dim] += F.linear(low[..., : self.rank], self.lora_q_up)
        qkv[..., 2 * dim :] += F.linear(low[..., self.rank :], self.lora_v_up)
        return qkv

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The same projection as one plain matrix, equal up to rounding."""
        dim = self.in_features
        linear = nn.Linear(dim, self.out_features, device="meta")
        weight = self.weight.detach().clone()
        weight[:dim] += self.lora_q_up @ self.lora_q_down
        weight[2 * dim :] += self.lora_v_up @ self.lora_v_down
        linear.weight = nn.Parameter(weight, requires_grad=False)
        linear.bias = nn.Parameter(self.bias.detach(), requires_grad=False)
        return linear


def attach_lora(encoder: nn.Module, *, rank: int, last_blocks: int | None = None) -> None:
    """Freeze an encoder and add trainable adapters to its last blocks.

    Args:
        encoder: a `SamEncoder`, changed in place; its outputs stay the same until the adapters are trained.
        rank: rank of the adapters.
        last_blocks: number of last blocks to adapt; None for all.

    Raises:
        ValueError: if the rank or the number of blocks is out of range, or there are adapters already.
    """
    depth = len(blocks_of(encoder))
    count = depth if last_blocks is None else last_blocks
    if rank < 1 or not 1 <= count <= depth:
        raise ValueError(f"adapters of rank {rank} on the last {count} of {depth} blocks are not possible")
    if any(True for _ in adapted_blocks(encoder)):
        raise ValueError("the encoder has adapters already")
    encoder.requires_grad_(False)
    for block in blocks_of(encoder)[depth - count :]:
        block.attn.qkv = AdaptedQkv(block.attn.qkv, rank)


def blocks_of(encoder: nn.Module) -> list[SamBlock]:
    """The transformer blocks of an encoder, in order."""
    return [cast(SamBlock, block) for block in cast(SamEncoder, encoder).blocks]


def adapted_blocks(encoder: nn.Module) -> Iterator[tuple[int, AdaptedQkv]]:
    """Index and adapted projection of every block with adapters, in order."""
    for index, block in enumerate(blocks_of(encoder)):
        if isinstance(block.attn.qkv, AdaptedQkv):
            yield index, block.attn.qkv


def first_adapted_block(encoder: nn.Module) -> int | None:
    """Index of the first block with adapters, before which nothing is trained. None without adapters."""
    return next((index for index, _ in adapted_blocks(encoder)), None)


def merge_lora(encoder: nn.Module) -> None:
    """Merge the adapters into the projections in place: same outputs up to rounding, no extra work per image.

    This cannot be undone and leaves no adapters to train or save; use it for inference only.
    """
    for index, qkv in list(adapted_blocks(encoder)):
        blocks_of(encoder)[index].attn.qkv = qkv.merged()


def official_adapter_keys(encoder: nn.Module) -> dict[str, str]:
    """Map the names of adapters in official SAMed and H-SAM files to keys in the encoder's own state dict.

    `w_a_NNN` (down) and `w_b_NNN` (up) are numbered over the adapted blocks in order: even for q, odd for v.
    """
    keys = {}
    for position, (index, _) in enumerate(adapted_blocks(encoder)):
        for offset, target in enumerate("qv"):
            number = f"{2 * position + offset:03d}"
            keys[f"w_a_{number}"] = f"blocks.{index}.attn.qkv.lora_{target}_down"
            keys[f"w_b_{number}"] = f"blocks.{index}.attn.qkv.lora_{target}_up"
    return keys


def adapters_to_official(encoder: nn.Module) -> dict[str, Tensor]:
    """All adapters by their official names; the tensors are the encoder's own, detached."""
    state = encoder.state_dict()
    return {official: state[own] for official, own in official_adapter_keys(encoder).items()}


def adapters_from_official(encoder: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load adapters by their official names, ignoring other tensors.

    Raises:
        CheckpointError: if an adapter is missing, unexpected, or of another rank or width.
    """
    keys = official_adapter_keys(encoder)
    given = {name for name in tensors if name.startswith(("w_a_", "w_b_"))}
    if given != set(keys):
        raise CheckpointError(
            f"The file has {len(given)} adapter tensors, the encoder needs {len(keys)}: "
            "it was trained with another encoder. Choose the encoder that it belongs to."
        )
    state = encoder.state_dict()
    for official, own in keys.items():
        if tensors[official].shape != state[own].shape:
            raise CheckpointError(
                f"The adapter {official} of the file has the shape {tuple(tensors[official].shape)}, "
                f"the model needs {tuple(state[own].shape)}: another rank or another encoder."
            )
    with torch.no_grad():
        for official, own in keys.items():
            state[own].copy_(tensors[official])
