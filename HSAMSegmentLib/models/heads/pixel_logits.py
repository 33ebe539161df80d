"""The last doubling of resolution and the reading of masks in one pass, for inference on a CPU.

At full resolution a map of few channels costs more in memory traffic than in arithmetic: placing the pixels, the layer
norm over 8 or 16 channels and the transposition for the masks each move all of it. Here the pixels stay in four planes
(one per position inside of the 2x2 that a coarse pixel becomes) with channels first, a piece of the image that fits a
cache at a time, and only the logits are placed. The mean of the layer norm is folded into the weights.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from HSAMSegmentLib.models.heads.upscaling import UpscalingStep

_PIXELS_AT_ONCE = 4096
"""Coarse pixels per piece: at 32 numbers each, 512 KiB in float32."""


def upscaled_logits(step: UpscalingStep, x: Tensor, classifiers: Tensor) -> Tensor:
    """What the classifiers say to each pixel of ``step(x)``, in float32 to rounding the same as taking the long way.

    Args:
        step: with a layer norm and without a finer map.
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
    """Weight and, as its last column, bias [4 * out, in + 1] whose results have the mean 0 over a pixel's channels."""
    weight = step.expand.weight.float().permute(2, 3, 1, 0).flatten(0, 1)
    whole = torch.cat([weight, cast(Tensor, step.expand.bias).float().expand(4, -1)[..., None]], dim=-1)
    return (whole - whole.mean(dim=1, keepdim=True)).flatten(0, 1)


def _normalized(step: UpscalingStep, channels: Tensor) -> Tensor:
    """The rest of the layer norm, and the GELU: [4, out, pixels] of mean 0 to the same shape; changed in place."""
    norm = cast(nn.LayerNorm, step.norm)
    spread = channels.square().mean(dim=1, keepdim=True).add_(norm.eps).rsqrt_()
    scaled = channels.mul_(spread).mul_(norm.weight.float()[:, None]).add_(norm.bias.float()[:, None])
    return F.gelu(scaled)
