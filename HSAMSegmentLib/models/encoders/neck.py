"""The neck that SAM's and MobileSAM's encoders end in."""

from __future__ import annotations

from torch import nn

from HSAMSegmentLib.models.encoders.sam_layers import ChannelNorm


def sam_neck(dim: int, out_chans: int) -> nn.Sequential:
    """Bring maps [B, dim, h, h] to [B, out_chans, h, h] (Kirillov et al., "Segment Anything", ICCV 2023).

    Args:
        dim: channels of the last block.
        out_chans: channels of the embedding.
    """
    return nn.Sequential(
        nn.Conv2d(dim, out_chans, kernel_size=1, bias=False),
        ChannelNorm(out_chans),
        nn.Conv2d(out_chans, out_chans, kernel_size=3, padding=1, bias=False),
        ChannelNorm(out_chans),
    )
