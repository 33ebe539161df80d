"""How H-SAM's hierarchical pixel decoder compares with its channels-first form, as SAM's own modules compute it.

Both are measured alternately in one run: python Testing/Benchmarks/pixel_decoder.py [--size 512] [--batch 1]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Callable

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Python"))

import torch
from segment_anything_package import sam_part
from torch import Tensor, nn

from HSAMSegmentLib.models.heads.hsam_decoders import RefiningDecoder
from HSAMSegmentLib.models.heads.sam_decoder import Upscaling

NUM_MASKS = 9
ROUNDS = 7


def channels_first(upscaling: Upscaling) -> nn.Sequential:
    """The same steps as transposed convolutions, SAM's layer norm and GELU over channels-first maps."""
    layers: list[nn.Module] = []
    for step in upscaling.steps:
        layers.append(step.expand)
        if isinstance(step.norm, nn.LayerNorm):
            norm = sam_part("common", "LayerNorm2d")(step.norm.normalized_shape[0])
            norm.load_state_dict(step.norm.state_dict())
            layers.append(norm)
        layers.append(nn.GELU())
    return nn.Sequential(*layers)


def forms(size: int, batch: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Ours and the channels-first form, from image tokens to full-size logits of the second stage."""
    side = size // 16
    decoder = RefiningDecoder(num_masks=NUM_MASKS)
    upscale, merge = channels_first(decoder.upscaling), channels_first(decoder.skip_connect)
    image = torch.randn(batch, side * side, 256)
    first = torch.randn(batch, 4 * side, 4 * side, 32)
    classifiers = torch.randn(batch, NUM_MASKS, 16)

    def ours() -> Tensor:
        upscaled = decoder.upscaling(image.unflatten(1, (side, side)))
        merged = decoder.skip_connect(torch.cat([upscaled, first], dim=-1))
        return (classifiers @ merged.flatten(1, 2).transpose(1, 2)).view(batch, NUM_MASKS, size, size)

    def plain() -> Tensor:
        upscaled = upscale(image.transpose(1, 2).reshape(batch, 256, side, side))
        merged = merge(torch.cat([upscaled, first.permute(0, 3, 1, 2)], dim=1))
        return (classifiers @ merged.flatten(2)).view(batch, NUM_MASKS, size, size)

    return ours, plain


def measure(ours: Callable[[], object], plain: Callable[[], object]) -> tuple[float, float]:
    """Median milliseconds of both, called alternately after one warm-up each."""
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for index in range(ROUNDS + 1):
        for name, form in (("ours", ours), ("plain", plain)):
            start = time.perf_counter()
            form()
            if index:
                times[name].append(1e3 * (time.perf_counter() - start))
    return statistics.median(times["ours"]), statistics.median(times["plain"])


def main() -> None:
    """Print milliseconds, their ratio and the largest difference of the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="side of the network input in pixels")
    parser.add_argument("--batch", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    ours, plain = forms(arguments.size, arguments.batch)
    with torch.inference_mode():
        difference = (ours() - plain()).abs().max().item()
        forward = measure(ours, plain)
    training = measure(lambda: ours().square().mean().backward(), lambda: plain().square().mean().backward())
    print(f"{arguments.size} x {arguments.size}, batch {arguments.batch}, {torch.get_num_threads()} thread(s)")
    for name, (mine, other) in (("forward", forward), ("forward and backward", training)):
        print(f"{name}: channels-first {other:.0f} ms, ours {mine:.0f} ms, ratio {other / mine:.2f}")
    print(f"largest difference of the logits: {difference:.1e}")


if __name__ == "__main__":
    main()
