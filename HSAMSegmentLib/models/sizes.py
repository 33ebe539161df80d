"""Estimate the size of a network and its caches from its description, before anything is built. No torch.

The counts of SAM's encoders are exact. Heads and other encoders were counted on this version's networks.
"""

from __future__ import annotations

from typing import Any

from HSAMSegmentLib.models.specification import Architecture, EncoderSpec

SAM_SIZES: dict[str, dict[str, Any]] = {
    "sam_vit_b": {"embed_dim": 768, "depth": 12, "num_heads": 12, "global_attn_indexes": (2, 5, 8, 11)},
    "sam_vit_l": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "global_attn_indexes": (5, 11, 17, 23)},
    "sam_vit_h": {"embed_dim": 1280, "depth": 32, "num_heads": 16, "global_attn_indexes": (7, 15, 23, 31)},
}
"""Constructor arguments of SAM's three published encoders."""

_OUT_CHANNELS, _WINDOW, _PATCH, _MLP_RATIO = 256, 14, 16, 4.0
_OTHER_ENCODERS = {"mobile_sam": 5_750_000, "compact": 4_200_000}
_HEADS = {
    "hsam": (7_972_356, 408_179),
    "samed": (3_637_889, 140_321),
    "autosam": (3_638_146, 768),
    "cnn": (20_686_145, 65),
    "linear": (75_041, 33),
}
"""Parameters of each head without classes and per class, for embeddings of 256 channels."""
_COMPACT_HEADS = {
    "hsam": (1_244_340, 102_747),
    "samed": (1_443_185, 35_345),
    "autosam": (1_443_314, 384),
    "cnn": (20_555_073, 65),
    "linear": (21_953, 17),
}
"""The same for the compact encoder's embeddings."""
_FLOATS_PER_TOKEN = 30
"""Activations of a running block, in token widths: normalized, q, k and v with positions, windows, MLP."""
_TOKENS_AT_ONCE = 1024
_PIXELS_AT_ONCE = 4 * 256 * 256


def encoder_weights(spec: EncoderSpec) -> int:
    """Number of parameters of an encoder."""
    if spec.name in _OTHER_ENCODERS:
        return _OTHER_ENCODERS[spec.name]
    sizes = _sam_sizes(spec)
    width, patch, out = sizes["embed_dim"], sizes["patch_size"], sizes["out_chans"]
    grid = spec.image_size // patch
    stem = 3 * patch**2 * width + width + grid**2 * width
    neck = width * out + 9 * out**2 + 4 * out
    sides = [grid if index in sizes["global_attn_indexes"] else sizes["window_size"] for index in range(sizes["depth"])]
    count: int = (
        stem + neck + sum(_block_weights(width, sizes["num_heads"], sizes["mlp_ratio"], side) for side in sides)
    )
    return count


def head_weights(architecture: Architecture) -> int:
    """Number of parameters of a head."""
    heads = _COMPACT_HEADS if architecture.encoder.name == "compact" else _HEADS
    base, each = heads[architecture.head]
    return base + each * architecture.num_classes


def cached_bytes_per_view(spec: EncoderSpec) -> int:
    """Disk space of one cached view of a frozen encoder: its embedding in half precision and its labels."""
    sizes = _sam_sizes(spec)
    grid = spec.image_size // sizes["patch_size"]
    count: int = 2 * sizes["out_chans"] * grid**2 + spec.image_size**2
    return count


def encoding_bytes(spec: EncoderSpec) -> int:
    """Working memory of a frozen SAM encoder on a CPU, beyond its weights."""
    sizes = _sam_sizes(spec)
    tokens = (spec.image_size // sizes["patch_size"]) ** 2
    views = max(1, _PIXELS_AT_ONCE // spec.image_size**2)
    at_work = max(tokens, _TOKENS_AT_ONCE)
    count: int = 4 * sizes["embed_dim"] * (2 * views * tokens + _FLOATS_PER_TOKEN * at_work)
    return count


def _sam_sizes(spec: EncoderSpec) -> dict[str, Any]:
    defaults = {"out_chans": _OUT_CHANNELS, "window_size": _WINDOW, "patch_size": _PATCH, "mlp_ratio": _MLP_RATIO}
    known = SAM_SIZES.get(spec.name, SAM_SIZES["sam_vit_b"])
    return {**defaults, **known, **spec.options}


def _block_weights(width: int, heads: int, mlp_ratio: float, side: int) -> int:
    hidden = int(width * mlp_ratio)
    attention = 4 * width**2 + 4 * width + 2 * (2 * side - 1) * (width // heads)
    return 4 * width + attention + 2 * width * hidden + hidden + width
