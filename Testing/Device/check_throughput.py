"""Images per second against the straightforward route, and encoders against the card's own matrix products."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from device_tools import Row, Setting, matrix_rate, seconds
from encoder_cost import flop_count
from reference_route import segment_stack
from torch import nn

from HSAMSegmentLib.inference.slice_predictor import half_network
from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.encoders.sam_vit import SamEncoder
from HSAMSegmentLib.models.sizes import SAM_SIZES
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.runtime.devices import default_precision

_GOAL_SHARE = 0.6
"""Of the card's bfloat16 rate in the encoder."""


def rows(setting: Setting) -> list[Row]:
    """The encoders, the built-in network, and SAM ViT-B from slice to label."""
    found = []
    for encoder, size, batch in [("sam_vit_b", 512, 16), ("sam_vit_b", 1024, 4), ("sam_vit_h", 1024, 2)]:
        if setting.quick and (encoder, size) != ("sam_vit_b", 512):
            continue
        found += _encoder_rows(setting, encoder, 224 if setting.quick else size, 1 if setting.quick else batch)
    found.append(_built_in_row(setting))
    found.append(_route_row(setting))
    return found


def _encoder_rows(setting: Setting, encoder: str, size: int, batch: int) -> list[Row]:
    title, dtype = f"{encoder} {size} px", default_precision(str(setting.device)).dtype
    ours = SamEncoder(image_size=size, **SAM_SIZES[encoder]).eval().to(setting.device)
    images = torch.rand(batch, 3, size, size, device=setting.device)
    taken = seconds(setting, partial(_forward, setting, _prepared(setting, ours, dtype), images, dtype)) / batch
    precision = str(dtype or torch.float32)[6:]
    rate = matrix_rate(setting, dtype or torch.float32)
    share = flop_count(encoder, size) / taken / rate
    result = f"{1.0 / taken:.1f} images/s in {precision}, batch {batch}; {share:.0%} of the matrix rate"
    found = [Row("throughput", f"{title}, encoder", result + f" (goal {_GOAL_SHARE:.0%})")]
    del ours
    plain = _official(encoder, size)
    if plain is None:
        return [*found, Row("throughput", f"{title}, official encoder", "left out: segment-anything is missing")]
    plain.to(setting.device)
    reference = seconds(setting, partial(_forward, setting, plain, images[:1], None))
    ratio = f"{1.0 / reference:.1f} images/s in float32, batch 1: ours is {reference / taken:.1f} times as fast"
    return [*found, Row("throughput", f"{title}, official encoder", ratio)]


def _built_in_row(setting: Setting) -> Row:
    """The architecture of the built-in models."""
    size, batch = (64, 2) if setting.quick else (256, 32)
    network = build_network(Architecture(EncoderSpec("compact", size), "hsam", 4, form="paper")).eval()
    network.to(setting.device, memory_format=torch.channels_last)
    dtype = default_precision(str(setting.device)).dtype
    images = torch.rand(batch, 3, size, size, device=setting.device).contiguous(memory_format=torch.channels_last)
    ours = seconds(setting, partial(_forward, setting, _prepared(setting, network, dtype), images, dtype)) / batch
    plain = seconds(setting, partial(_forward, setting, network, images[:1], None))
    result = f"{1.0 / ours:.0f} slices/s, batch {batch}; {plain / ours:.1f} times as fast as in float32, batch 1"
    return Row("throughput", f"built-in architecture {size} px", result)


def _route_row(setting: Setting) -> Row:
    """Slices to labels the straightforward way: one at a time, spline on the CPU, official encoder, float32."""
    size = 224 if setting.quick else 512
    encoder = _official("sam_vit_b", size)
    if encoder is None:
        return Row("throughput", "straightforward route", "left out: segment-anything is missing")
    network = build_network(Architecture(EncoderSpec("sam_vit_b", size), "hsam", 8, form="released")).eval()
    network.encoder = encoder
    network.to(setting.device)
    stack = np.random.default_rng(0).random((1 if setting.quick else 8, 320, 320), dtype=np.float32)
    taken = seconds(setting, lambda: segment_stack(network, stack), samples=2) / len(stack)
    return Row("throughput", f"straightforward route, H-SAM ViT-B {size} px", f"{1.0 / taken:.1f} slices/s")


def _prepared(setting: Setting, network: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    return half_network(network, dtype) if dtype is not None and setting.device.type == "cpu" else network


def _forward(setting: Setting, network: nn.Module, images: torch.Tensor, dtype: torch.dtype | None) -> None:
    context = nullcontext() if dtype is None else torch.autocast(setting.device.type, dtype=dtype)
    with torch.inference_mode(), context:
        network(images)


def _official(encoder: str, size: int) -> nn.Module | None:
    """segment-anything's own encoder, with its own random weights; None if the package is missing."""
    try:
        from bench_encoder import build_original

        return build_original(encoder, size)
    except ImportError:
        return None
