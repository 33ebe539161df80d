"""What int8 convolutions would bring: Dice and processor seconds of built-in models beside float32 and bfloat16.

    python Testing/Benchmarks/bench_int8.py --models abdomen-mr cardiac-mr-bssfp

A trial, not a route of the program: all convolutions of the encoder but depthwise ones and the stem take int8 weights
(a scale for each output channel) and uint8 inputs (a scale for each call, from its extremes), by the oneDNN operators
that PyTorch's own quantization compiles to. The rest of the network is in the precision of the row.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from bench_precision import mean, validation_cases
from torch import Tensor, nn

from HSAMSegmentLib.evaluation.metrics import Comparison, compare
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.runtime.devices import PRECISION_VARIABLE
from HSAMSegmentLib.weights.loading import load_model
from recipes.builtin_tasks import SHIPPED_TASKS, BuiltinTask

FEWEST_CHANNELS = 16
PRECISIONS = ("float32", "bfloat16")


class Int8Conv2d(nn.Module):
    """A convolution with int8 weights and inputs that are quantized at each call."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        weight = convolution.weight.detach().float()
        self.scales = weight.abs().amax(dim=(1, 2, 3)).clamp(min=1e-8) / 127
        quantized = (weight / self.scales[:, None, None, None]).round().clamp(-127, 127).to(torch.int8)
        self.geometry = (list(convolution.stride), list(convolution.padding), list(convolution.dilation), 1)
        self.packed = torch.ops.onednn.qconv_prepack(quantized, self.scales, 1.0, 0, *self.geometry, None)
        self.zeros = torch.zeros(len(self.scales), dtype=torch.long)
        self.bias = None if convolution.bias is None else convolution.bias.detach().float()

    def __deepcopy__(self, memo: dict[int, Any]) -> Int8Conv2d:
        """Itself: packed weights cannot be copied, and nothing changes them."""
        return self

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [B, D, h', w'] in the precision of the network."""
        precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        low, high = (float(value) for value in torch.aminmax(x))
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max(high - low, 1e-8) / 255
        zero = round(-low / scale)
        levels = (x.float() if x.dtype != torch.float32 else x).mul(1 / scale).add_(zero + 0.5).clamp_(0, 255)
        levels = levels.to(torch.uint8).contiguous(memory_format=torch.channels_last)
        weights = (self.packed, self.scales, self.zeros, self.bias)
        output: Tensor = torch.ops.onednn.qconv2d_pointwise(
            levels, scale, zero, *weights, *self.geometry, 1.0, 0, precision, "none", [], ""
        )
        return output


def quantize(module: nn.Module) -> int:
    """Replace the convolutions of an encoder; returns how many."""
    count = 0
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and child.groups == 1 and child.in_channels >= FEWEST_CHANNELS:
            setattr(module, name, Int8Conv2d(child))
            count += 1
        else:
            count += quantize(child)
    return count


def print_rows(task: BuiltinTask, threads: int) -> None:
    """Print a row for each precision of the rest, without and with int8 convolutions."""
    cases = validation_cases(task)
    for precision in PRECISIONS:
        os.environ[PRECISION_VARIABLE] = precision
        for is_int8 in (False, True):
            model = load_model(task.id)
            changed = quantize(model.network.encoder) if is_int8 else 0
            segmenter = Segmenter(model, device="cpu", options=SegmentOptions(threads=threads))
            comparisons: list[Comparison] = []
            seconds = 0.0
            for case in cases:
                began = time.process_time()
                result = segmenter.segment(case.volume)
                seconds += time.process_time() - began
                truth = Segmentation(case.labels, case.volume.geometry, model.manifest.labels, "truth")
                comparisons.append(compare(result.segmentation, truth))
            values = f"{mean(comparisons, 'dice'):.4f} | {mean(comparisons, 'hd95'):.2f} | {seconds:.1f}"
            print(f"| `{task.id}` | {precision} | {changed or 'none'} | {values} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=[task.id for task in SHIPPED_TASKS])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    print("| model | rest | int8 convolutions | Dice | HD95 (mm) | processor (s), the whole route |")
    print("|---|---|---|---|---|---|")
    for task in SHIPPED_TASKS:
        if task.id in options.models:
            print_rows(task, options.threads)


if __name__ == "__main__":
    main()
