"""The second decoder of H-SAM: it refines the first one's masks, at full resolution.

`ClassGate` is H-SAM's class-balanced, mask-guided self-attention, which steers the second decoder to hard positions.
In the paper (Cheng et al., CVPR 2024) the first stage's masks guide a self-attention whose result modulates the image
embedding, and noise on that guidance, stronger for rare classes, balances the classes. In the released weights this
branch ends in a softmax over a single channel, which is 1 everywhere, so it has no effect. Our form:

- The self-attention runs over *positions*. Each position's features are its similarities to the class tokens, so
  neither the image size nor the number of classes is built in.
- The gate is twice a sigmoid, between 0 and 2, and about 1 at the start. The embedding, scaled by (1 + gate), thus
  starts at the released form's factor of 2 and can be neither silenced nor blown up. A softmax over positions would
  couple all positions to each other and to the image size (scaled by N it can put N on one position).
- Labels are resampled to the embedding's grid by nearest neighbor. Without labels the first stage's prediction is used;
  a pixel whose label is not a class gets no noise.
- Class frequencies are learned from the labels seen in training, as a running mean.

`upscaled_logits` fuses the last upsampling and the mask readout, for inference on a CPU. At full resolution a map of
few channels costs more in memory traffic than in arithmetic: placing the pixels, the layer norm over 8 or 16 channels
and the transposition for the masks each move all of it. Here the pixels stay in four channels-first planes (one per
position in the 2x2 block of a coarse pixel), one cache-sized piece of the image at a time, and only the logits are
placed. The mean of the layer norm is folded into the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from HSAMSegmentLib.models.heads.sam_decoder import (
    DecoderOutput,
    HypernetworkMlp,
    Upscaling,
    UpscalingStep,
    mask_classifiers,
    read_masks,
)
from HSAMSegmentLib.models.heads.two_way_transformer import Attention, TokenMlp, TwoWayTransformer

_PIXELS_AT_ONCE = 4096
"""Coarse pixels per piece: 512 KiB in float32 at 32 numbers each."""

FREQUENCY_MOMENTUM = 0.02
RAREST_FREQUENCY = 1e-4


def upscaled_logits(step: UpscalingStep, x: Tensor, classifiers: Tensor) -> Tensor:
    """Apply the classifiers to each pixel of ``step(x)``; in float32 equal to the unfused computation up to rounding.

    Args:
        step: an upscaling step with a layer norm and without a finer map.
        x: [B, h, w, in_channels].
        classifiers: [B, T, out_channels].

    Returns:
        logits [B, T, 2h, 2w].
    """
    batch, rows, columns, _ = x.shape
    masks = classifiers.shape[1]
    logits = torch.empty(batch, masks, rows, 2, columns, 2, device=x.device)
    with torch.autocast(x.device.type, enabled=False):
        weight = _centered(step)
        planes = torch.empty(4, masks, rows * columns, device=x.device)
        for pixels, classifier, target in zip(x.flatten(1, 2), classifiers.float(), logits):
            for part, place in zip(pixels.split(_PIXELS_AT_ONCE), planes.split(_PIXELS_AT_ONCE, dim=-1)):
                channels = (weight @ F.pad(part.float(), (0, 1), value=1.0).t()).unflatten(0, (4, -1))
                torch.matmul(classifier, _normalized(step, channels), out=place)
            target.copy_(planes.view(2, 2, masks, rows, columns).permute(2, 3, 0, 4, 1))
    return logits.view(batch, masks, 2 * rows, 2 * columns)


def _centered(step: UpscalingStep) -> Tensor:
    """Weight and bias (last column) [4 * out, in + 1], centered so that results have mean 0 over a pixel's channels."""
    weight = step.expand.weight.float().permute(2, 3, 1, 0).flatten(0, 1)
    whole = torch.cat([weight, cast(Tensor, step.expand.bias).float().expand(4, -1)[..., None]], dim=-1)
    return (whole - whole.mean(dim=1, keepdim=True)).flatten(0, 1)


def _normalized(step: UpscalingStep, channels: Tensor) -> Tensor:
    """The rest of the layer norm, and GELU: zero-mean [4, out, pixels] to the same shape, in place."""
    norm = cast(nn.LayerNorm, step.norm)
    spread = channels.square().mean(dim=1, keepdim=True).add_(norm.eps).rsqrt_()
    scaled = channels.mul_(spread).mul_(norm.weight.float()[:, None]).add_(norm.bias.float()[:, None])
    return F.gelu(scaled)


def class_weights(logits: Tensor) -> Tensor:
    """Class probabilities of the first stage for each cell of the embedding.

    Downsampling is bilinear, which at a factor of four is the mean of the central 2x2 pixels of each 4x4 block; written
    this way, its gradient is deterministic on GPUs, too.

    Args:
        logits: first-stage logits [B, T, 4h, 4w].

    Returns:
        [B, T, h * w], softmax over the classes.
    """
    central = logits.unflatten(3, (-1, 4)).unflatten(2, (-1, 4))[:, :, :, 1:3, :, 1:3]
    output: Tensor = central.mean(dim=(3, 5)).softmax(dim=1).flatten(2)
    return output


class RefiningDecoder(nn.Module):
    """H-SAM's second decoder (Cheng et al., CVPR 2024).

    Each token attends only to what the first stage assigns to its class (mask cross-attention), and masks are read from
    the upscaled embeddings of both decoders, merged and upsampled to the resolution of the input (hierarchical pixel
    decoder).
    """

    def __init__(
        self,
        *,
        num_masks: int,
        embed_dim: int = 256,
        num_heads: int = 8,
        mlp_dim: int = 2048,
        depth: int = 2,
        dropout: float = 0.2,
        skip_channels: Sequence[int] = (),
    ) -> None:
        """
        Args:
            num_masks: T, classes plus background.
            embed_dim: width of the embedding and of all tokens, a multiple of 16.
            num_heads: heads of every attention; divides `embed_dim / 2`.
            mlp_dim: hidden width of the transformer's MLPs.
            depth: layers of the transformer.
            dropout: dropout on the token-to-image results in training.
            skip_channels: channels of the encoder's finer maps at 2h, 4h, 8h and 16h, one for each map to use.
        """
        super().__init__()
        self.transformer = TwoWayTransformer(
            embed_dim=embed_dim,
            num_heads=num_heads,
            mlp_dim=mlp_dim,
            depth=depth,
            cross_first=True,
            cross_downsample=1,
            dropout=dropout,
        )
        self.mask_tokens = nn.Parameter(torch.randn(num_masks, embed_dim))
        fine, finest = embed_dim // 8, embed_dim // 16
        self.upscaling = Upscaling(
            channels=(embed_dim, embed_dim // 4, fine), norms=(True, False), skip_channels=skip_channels[:2]
        )
        self.skip_connect = Upscaling(
            channels=(2 * fine, fine, finest), norms=(True, True), skip_channels=skip_channels[2:]
        )
        self.hypernetworks = nn.ModuleList(
            HypernetworkMlp(in_dim=embed_dim, hidden_dim=embed_dim, out_dim=finest, num_layers=5)
            for _ in range(num_masks)
        )
        self.iou_prediction_head = HypernetworkMlp(
            in_dim=embed_dim, hidden_dim=embed_dim, out_dim=num_masks, num_layers=3
        )

    def forward(
        self,
        image: Tensor,
        image_pe: Tensor,
        grid: tuple[int, int],
        weights: Tensor,
        first_upscaled: Tensor,
        skips: Sequence[Tensor] = (),
    ) -> DecoderOutput:
        """Decode all masks at sixteen times the resolution of the embedding.

        Args:
            image: image tokens [B, rows * columns, C].
            image_pe: their positions [1, rows * columns, C].
            grid: rows and columns of the embedding.
            weights: weight of each class at each image token [B, T, rows * columns], from `class_weights`.
            first_upscaled: upscaled embedding of the first decoder [B, 4 rows, 4 columns, C / 8].
            skips: finer feature maps of the encoder, coarsest first.
        """
        tokens, image, joined = self._joined(image, image_pe, grid, weights, first_upscaled, skips)
        merged = self.skip_connect(joined, skips[2:])
        logits = read_masks(self.hypernetworks, tokens, merged)
        return DecoderOutput(logits, tokens, tokens[:, 0], image, merged)

    def logits(
        self,
        image: Tensor,
        image_pe: Tensor,
        grid: tuple[int, int],
        weights: Tensor,
        first_upscaled: Tensor,
        skips: Sequence[Tensor] = (),
    ) -> Tensor:
        """Only the logits of `forward`, [B, T, 16 rows, 16 columns]; faster for inference on a CPU."""
        last = cast(UpscalingStep, self.skip_connect.steps[-1])
        if torch.is_grad_enabled() or image.device.type != "cpu" or last.skip is not None:
            return cast(Tensor, self(image, image_pe, grid, weights, first_upscaled, skips).logits)
        tokens, _, joined = self._joined(image, image_pe, grid, weights, first_upscaled, skips)
        before = self.skip_connect.before_last(joined, skips[2:])
        return upscaled_logits(last, before, mask_classifiers(self.hypernetworks, tokens))

    def _joined(
        self,
        image: Tensor,
        image_pe: Tensor,
        grid: tuple[int, int],
        weights: Tensor,
        first_upscaled: Tensor,
        skips: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, image tokens, and the concatenated upscaled embeddings of both decoders."""
        tokens, image = self.transformer(self.mask_tokens[None], image, image_pe, weights)
        upscaled = self.upscaling(image.unflatten(1, grid), skips[:2])
        return tokens, image, torch.cat([upscaled, first_upscaled], dim=-1)

    def quality(self, output: DecoderOutput) -> Tensor:
        """Predicted quality of each mask [B, T]; the official training leaves it untrained."""
        result: Tensor = self.iou_prediction_head(output.quality_token)
        return result


def token_map(tokens: Tensor, image: Tensor) -> Tensor:
    """Similarity of every mask token [B, T, C] to every image token [B, N, C]: [B, T, N]."""
    return tokens @ image.transpose(1, 2)


def noise_strengths(frequencies: Tensor) -> Tensor:
    """Relative noise strength per class: 1 for the rarest, toward 0 for one that fills everything.

    The logarithm keeps organs that cover one and ten percent of the pixels comparable.

    Args:
        frequencies: fraction of pixels of each class [T].
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
            embed_dim: width of the tokens being compared; sets the scale of their products.
            gate_dim: width of the self-attention.
            num_heads: heads of the self-attention.
            label_noise: standard deviation of the training noise at positions of the rarest class, relative to that of
                the similarities.
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
        # Without memory nothing is to be initialized, and PyTorch would import its compiler for it: a second.
        if not self.to_gate.weight.is_meta:
            nn.init.normal_(self.to_gate.weight, std=0.02)
        nn.init.zeros_(self.to_gate.bias)
        self.register_buffer("class_frequency", torch.full((num_masks,), 1 / num_masks))

    @torch.no_grad()
    def _observe(self, labels: Tensor) -> None:
        """Update the running class frequencies from labels [B, N], ignoring values that are not a class."""
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
            similarities: similarities of mask tokens to image tokens [B, T, N], from `token_map`.
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
