"""Peak memory of segmenting a 512 x 512 x 800 volume with 14 labels, above the interpreter with torch loaded.

The encoder is set aside (it is one convolution here, its memory does not depend on the volume); the head is H-SAM's,
with 15 channels at full resolution. Its random weights label the volume with noise, the worst case for post-processing:
every label fills the whole volume. With "--organs" the head is replaced by one that yields 14 compact organs.

    python Testing/Benchmarks/bench_memory.py [--slices 800] [--organs]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor, nn

if sys.platform != "win32":
    import resource

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.labels.terminology import label_set_of
from HSAMSegmentLib.models.heads.hsam import HsamHead
from HSAMSegmentLib.models.interface import Features, SegmentationNetwork, StageLogits
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.preprocess.rules import IntensityRule, SliceRule
from HSAMSegmentLib.weights.loading import LoadedModel
from HSAMSegmentLib.weights.manifest import EncoderSource, License, Manifest

SIZE = 512
CLASSES = 14
GIB = 2.0**30


class Patches(nn.Module):
    """The encoder that is set aside: one convolution; hands the image on for the head with organs."""

    out_chans = 256

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, 256, 16, 16)

    def forward(self, images: Tensor) -> Features:
        return Features(self.projection(images), (images[:, :1],))


class Organs(nn.Module):
    """Fourteen compact organs by gray value, in two stages."""

    def forward(self, features: Features, labels: Tensor | None = None) -> StageLogits:
        image = features.skips[0]
        centers = torch.linspace(0.0, 1.0, CLASSES + 1)[None, :, None, None]
        logits = -(image - centers).abs() * 50.0
        return StageLogits((nn.functional.avg_pool2d(logits, 4), logits))


def volume(slices: int) -> Volume:
    """Fourteen boxes of different gray values, as int16."""
    array = np.zeros((slices, SIZE, SIZE), np.int16)
    for organ in range(CLASSES):
        row, column = 60 + 110 * (organ // 4), 40 + 110 * (organ % 4)
        array[slices // 10 : slices - slices // 10, row : row + 90, column : column + 90] = round(
            (organ + 1) * 1000 / CLASSES
        )
    return Volume(array, Geometry((SIZE, SIZE, slices), (0.8, 0.8, 1.0)), modality="CT")


def model(organs: bool) -> LoadedModel:
    """H-SAM's head or the one with organs on the encoder that is set aside."""
    torch.manual_seed(0)
    head = Organs() if organs else HsamHead(num_classes=CLASSES)
    network = SegmentationNetwork(encoder=Patches(), head=head, image_size=SIZE, num_classes=CLASSES).eval()
    manifest = Manifest(
        id="memory",
        title="Memory",
        modality="CT",
        architecture=Architecture(EncoderSpec("custom", SIZE), "hsam", CLASSES, form="released"),
        encoder_source=EncoderSource(included=True),
        intensity=IntensityRule("window", window_hu=(0.0, 1000.0)),
        slices=SliceRule(plane="axial"),
        labels=label_set_of({value: f"organ {value}" for value in range(1, CLASSES + 1)}),
        license=License("none"),
    )
    return LoadedModel(network, manifest, Path("memory.safetensors"))


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """Segment the volume once and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=800)
    parser.add_argument("--organs", action="store_true", help="compact organs in place of noise")
    arguments = parser.parse_args()
    segmenter = Segmenter(model(arguments.organs), device="cpu", options=SegmentOptions())
    before = psutil.Process().memory_info().rss
    scan = volume(arguments.slices)
    began = time.perf_counter()
    result = segmenter.segment(scan)
    print(f"{arguments.slices} slices, {len(result.found)} labels found, {time.perf_counter() - began:.0f} s")
    print(f"timings in seconds: { {name: round(value, 1) for name, value in result.timings_s.items()} }")
    print(f"before {before / GIB:.2f} GiB (interpreter, torch, model), peak {peak_bytes() / GIB:.2f} GiB")
    print(f"above the interpreter with torch and the model: {(peak_bytes() - before) / GIB:.2f} GiB (limit 2)")


if __name__ == "__main__":
    main()
