"""What SAM's encoders cost at least."""

from __future__ import annotations

from HSAMSegmentLib.models.sizes import SAM_SIZES


def flop_count(encoder: str, image_size: int) -> float:
    """Floating-point operations per image that our encoder cannot do without: two per multiplication of a product."""
    sizes = SAM_SIZES[encoder]
    width, depth, side = sizes["embed_dim"], sizes["depth"], image_size // 16
    tokens, global_blocks = side**2, len(sizes["global_attn_indexes"])
    linear = 12 * width**2 * tokens * depth
    pairs = global_blocks * tokens**2 + (depth - global_blocks) * tokens * min(14**2, tokens)
    outside = tokens * (3 * 256 * width + width * 256 + 256 * 256 * 9)
    return 2.0 * (linear + 2 * width * pairs + outside)
