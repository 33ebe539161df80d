"""Every network on the device in three precisions against the CPU in float32."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import nullcontext

import torch
from device_tools import Row, Setting
from torch import Tensor, nn

from HSAMSegmentLib.inference.slice_predictor import half_network
from HSAMSegmentLib.models.building import HEAD_CLASSES, build_network
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec

_PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LIMITS = {"float32": 5e-3, "bfloat16": 0.15, "float16": 0.05}
"""Mean difference of the logits as a share of their standard deviation. Loose in float32: cuDNN's convolutions may use
TF32 by default; what is measured is in the table."""

_TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2, "global_attn_indexes": (1,), "window_size": 7}


def rows(setting: Setting) -> list[Row]:
    """A row per network and precision."""
    found = []
    for title, network in _networks(setting.quick):
        images = torch.rand(2, 3, network.image_size, network.image_size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            exact = network(images).stages
        moved = copy.deepcopy(network).to(setting.device, memory_format=torch.channels_last)
        for name, dtype in _PRECISIONS.items():
            found.append(_row(setting, f"{title}, {name}", name, exact, _stages(setting, moved, images, dtype)))
    return found


def _stages(
    setting: Setting, network: SegmentationNetwork, images: Tensor, dtype: torch.dtype | None
) -> tuple[Tensor, ...]:
    """Logits in a precision, as segmenting computes them."""
    context = nullcontext() if dtype is None else torch.autocast(setting.device.type, dtype=dtype)
    used = half_network(network, dtype) if dtype is not None and setting.device.type == "cpu" else network
    with torch.inference_mode(), context:
        given = images.to(setting.device).contiguous(memory_format=torch.channels_last)
        return tuple(stage.float().cpu() for stage in used(given).stages)


def _row(setting: Setting, what: str, precision: str, exact: tuple[Tensor, ...], found: tuple[Tensor, ...]) -> Row:
    share = max(float((a - b).abs().mean() / a.std().clamp_min(1e-12)) for a, b in zip(exact, found))
    changed = float((exact[-1].argmax(dim=1) != found[-1].argmax(dim=1)).float().mean())
    is_bad = not share < _LIMITS[precision]
    return Row("parity", what, f"logits differ by {share:.1e} of their spread, {changed:.2%} of the labels", is_bad)


def _networks(quick: bool) -> Iterator[tuple[str, SegmentationNetwork]]:
    """Every encoder and every head."""
    yield "compact + hsam", _network(EncoderSpec("compact", 64 if quick else 256), "hsam")
    yield "mobile_sam + hsam", _network(EncoderSpec("mobile_sam", 64 if quick else 512), "hsam")
    sam = EncoderSpec("custom", 64, dict(_TINY)) if quick else EncoderSpec("sam_vit_b", 512)
    for head in sorted(HEAD_CLASSES):
        yield f"{sam.name} + {head}", _network(sam, head, rank=2)
    if not quick:
        yield "sam_vit_h + hsam", _network(EncoderSpec("sam_vit_h", 512), "hsam")


def _network(encoder: EncoderSpec, head: str, rank: int = 0) -> SegmentationNetwork:
    torch.manual_seed(0)
    form = "released" if head == "hsam" else ""
    network = build_network(Architecture(encoder, head, 4, form=form, lora_rank=rank)).eval()
    for name, parameter in network.encoder.named_parameters():
        if "pos" in name or "lora" in name:
            nn.init.normal_(parameter, std=0.1)
    return network
