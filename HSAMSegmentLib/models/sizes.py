"""How large a network and what it keeps are, told from its description alone: said before anything is built. No torch.

The numbers of SAM's encoders are exact. Heads and the other encoders are counted in this version's networks.
"""

from __future__ import annotations

from typing import Any

from HSAMSegmentLib.models.specification import Architecture, EncoderSpec

SAM_SIZES: dict[str, dict[str, Any]] = {
    "sam_vit_b": {"embed_dim": 768, "depth": 12, "num_heads": 12, "global_attn_indexes": (2, 5, 8, 11)},
    "sam_vit_l": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "global_attn_indexes": (5, 11, 17, 23)},
    "sam_vit_h": {"embed_dim": 1280, "depth": 32, "num_heads": 16, "global_attn_indexes": (7, 15, 23, 31)},
}
"""Constructor arguments of the three published encoders."""

_OUT_CHANNELS, _WINDOW, _PATCH, _MLP_RATIO = 256, 14, 16, 4.0
_OTHER_ENCODERS = {"mobile_sam": 5_750_000, "compact": 4_200_000}
_HEADS = {
    "hsam": (7_972_356, 408_179),
    "samed": (3_637_889, 140_321),
    "autosam": (3_638_146, 768),
    "cnn": (20_686_145, 65),
    "linear": (75_041, 33),
}
"""Numbers without classes and of each class, on embeddings of 256 channels."""
_COMPACT_HEADS = {
    "hsam": (1_244_340, 102_747),
    "samed": (1_443_185, 35_345),
    "autosam": (1_443_314, 384),
    "cnn": (20_555_073, 65),
    "linear": (21_953, 17),
}
"""The same on the compact encoder's."""
_FLOATS_PER_TOKEN = 30
"""Of a block at work, in widths of a token: normalized, q, k and v with their position parts, windows, perceptron."""
_TOKENS_AT_ONCE = 1024
_PIXELS_AT_ONCE = 4 * 256 * 256


def encoder_weights(spec: EncoderSpec) -> int:
    """Numbers in an encoder."""
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
    """Numbers in a head."""
    heads = _COMPACT_HEADS if architecture.encoder.name == "compact" else _HEADS
    base, each = heads[architecture.head]
    return base + each * architecture.num_classes


def cached_bytes_per_view(spec: EncoderSpec) -> int:
    """On the disk, of one view that a frozen encoder has seen: its embedding in half precision and its labels."""
    sizes = _sam_sizes(spec)
    grid = spec.image_size // sizes["patch_size"]
    count: int = 2 * sizes["out_chans"] * grid**2 + spec.image_size**2
    return count


def encoding_bytes(spec: EncoderSpec) -> int:
    """Memory beside its weights that a frozen encoder of SAM's kind works in on a processor."""
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
