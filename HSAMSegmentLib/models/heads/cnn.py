"""AutoSAM's convolutional head (Hu et al., arXiv 2306.13731)."""

from __future__ import annotations

from torch import Tensor, nn

from HSAMSegmentLib.models.interface import Features, StageLogits

NUM_DOUBLINGS = 2


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)


def _block(width: int, *, doubles: bool) -> nn.Sequential:
    """Two convolutions that halve the width, optionally with twofold upsampling."""
    if not doubles:
        return nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width // 2), nn.ReLU())
    enlarge = nn.ConvTranspose2d(width, width // 2, kernel_size=2, stride=2)
    return nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), enlarge)


class CnnHead(nn.Module):
    """Features to the logits of one stage, at 4h."""

    def __init__(self, *, num_classes: int, embed_dim: int = 256, width: int = 1024, num_depth: int = 4) -> None:
        """
        Args:
            num_classes: foreground classes K; logits have K + 1 channels, background first.
            embed_dim: width of the encoder's embedding.
            width: channels after the input block; every further block halves them.
            num_depth: number of blocks, at least two; the last two double the resolution.
        """
        super().__init__()
        if num_depth < NUM_DOUBLINGS or width % 2**num_depth:
            raise ValueError(f"A convolutional head of width {width} cannot have {num_depth} blocks.")
        self.input_block = nn.Sequential(
            nn.Conv2d(embed_dim, width, kernel_size=1), nn.ReLU(), nn.Conv2d(width, width, kernel_size=1), nn.ReLU()
        )
        self.blocks = nn.Sequential(
            *[_block(width // 2**i, doubles=i >= num_depth - NUM_DOUBLINGS) for i in range(num_depth)]
        )
        last = width // 2**num_depth
        self.final = nn.Sequential(_conv(last, last), nn.Conv2d(last, num_classes + 1, kernel_size=1))

    def forward(self, features: Features, labels: Tensor | None = None) -> StageLogits:
        """Features with an embedding [B, embed_dim, h, w] to logits [B, K + 1, 4h, 4w]; `labels` are not used."""
        return StageLogits((self.final(self.blocks(self.input_block(features.embedding))),))
