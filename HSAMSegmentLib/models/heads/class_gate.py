"""H-SAM's class-balanced, mask-guided self-attention: where the second decoder should look harder.

The paper (Cheng et al., CVPR 2024) lets the first stage's masks guide a self-attention whose result modulates the
image embedding, and balances the classes by noise on that guidance: more for rare classes. In the released weights this
branch ends in a soft-max over a single channel, which is 1 everywhere, so it never did anything. This is our form:

- The self-attention runs over *positions*. Each position's features are its similarities to the class tokens, so
  neither the image size nor the number of classes is built in.
- The gate is twice a sigmoid, between 0 and 2, and about 1 at the start. The embedding, enlarged by (1 + gate), thus
  starts as the released form's factor of 2 and can never be silenced or blown up. A soft-max over positions would have
  tied all positions to each other and to the image size (scaled by N it can put N on one position).
- Labels come to the embedding's grid by nearest neighbor. Where no labels are given the first stage's own opinion takes
  their place; a pixel whose label is not a class gets no noise.
- How rare a class is, is learned from the labels seen in training, as a running mean.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from HSAMSegmentLib.models.heads.two_way_transformer import Attention, TokenMlp

FREQUENCY_MOMENTUM = 0.02
RAREST_FREQUENCY = 1e-4


def token_map(tokens: Tensor, image: Tensor) -> Tensor:
    """Similarity of every mask token [B, T, C] to every image token [B, N, C]: [B, T, N]."""
    return tokens @ image.transpose(1, 2)


def noise_strengths(frequencies: Tensor) -> Tensor:
    """Relative strength of each class's noise: 1 for the rarest, towards 0 for one that fills everything.

    The logarithm keeps organs of one and of ten percent of the pixels comparable.

    Args:
        frequencies: share of each class in the pixels [T].
    """
    rarity = -frequencies.clamp(RAREST_FREQUENCY, 1 - RAREST_FREQUENCY).log()
    return rarity / rarity.max()


class ClassGate(nn.Module):
    """A gate over positions from the similarities of image tokens to class tokens."""

    class_frequency: Tensor

    def __init__(
        self, *, num_masks: int, embed_dim: int = 256, gate_dim: int = 64, num_heads: int = 4, label_noise: float = 0.2
    ) -> None:
        """
        Args:
            num_masks: T, classes plus background.
            embed_dim: width of the tokens that are compared; settles the scale of their products.
            gate_dim: width of the self-attention.
            num_heads: its heads.
            label_noise: standard deviation of the noise on the rarest class's positions in training, in units of the
                similarities' own standard deviation.
        """
        super().__init__()
        self.scale = embed_dim**-0.5
        self.label_noise = label_noise
        self.lift = nn.Linear(num_masks, gate_dim)
        self.self_attn = Attention(embed_dim=gate_dim, num_heads=num_heads)
        self.norm1 = nn.LayerNorm(gate_dim)
        self.mlp = TokenMlp(embed_dim=gate_dim, hidden_dim=2 * gate_dim)
        self.norm2 = nn.LayerNorm(gate_dim)
        self.to_gate = nn.Linear(gate_dim, 1)
        nn.init.normal_(self.to_gate.weight, std=0.02)
        nn.init.zeros_(self.to_gate.bias)
        self.register_buffer("class_frequency", torch.full((num_masks,), 1 / num_masks))

    @torch.no_grad()
    def _observe(self, labels: Tensor) -> None:
        """Update the running share of every class from labels [B, N]; values that are not a class are left out."""
        num_masks = self.class_frequency.numel()
        known = labels[(labels >= 0) & (labels < num_masks)]
        if known.numel():
            share = torch.bincount(known, minlength=num_masks).to(self.class_frequency) / known.numel()
            self.class_frequency.lerp_(share, FREQUENCY_MOMENTUM)

    def _noise(self, similarities: Tensor, labels: Tensor) -> Tensor:
        strengths = F.pad(noise_strengths(self.class_frequency), (0, 1))
        no_class = (labels < 0) | (labels >= self.class_frequency.numel())
        strength = strengths[labels.masked_fill(no_class, self.class_frequency.numel())]
        spread = similarities.detach().std(dim=(1, 2), keepdim=True)
        return torch.randn_like(similarities) * (self.label_noise * spread * strength[:, None])

    def forward(self, similarities: Tensor, labels: Tensor | None = None) -> Tensor:
        """Compute the gate.

        Args:
            similarities: of mask tokens to image tokens [B, T, N], from `token_map`.
            labels: class of every position [B, N] (int64; other values: unknown); used in training only.

        Returns:
            [B, N, 1] between 0 and 2.
        """
        similarities = similarities * self.scale
        if self.training and labels is not None:
            self._observe(labels)
            similarities = similarities + self._noise(similarities, labels)
        x = self.lift(similarities.transpose(1, 2))
        x = self.norm1(x + self.self_attn(x, x, x))
        x = self.norm2(x + self.mlp(x))
        return 2 * torch.sigmoid(self.to_gate(x))
