"""A volume with H-SAM ViT-B 512: the `Segmenter` against the straightforward route, chunk by chunk in one run.

The straightforward route is the official one: one slice at a time, spline resizing on the CPU, segment-anything's own
image encoder, float32. Both use the same weights (made by a rule; speed does not depend on them, and labels that change
from pixel to pixel make the comparison strict) and the same head; the adapters are merged into the original encoder,
which spares it their cost. The time of the `Segmenter` includes confidence and statistics.

    python Testing/Benchmarks/bench_volume.py [--slices 60] [--chunk 6] [--rows 320] [--columns 320] [--threads 2]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Python"))

from parity_weights import fill_state_dict
from reference_route import segment_stack
from segment_anything_package import sam_part

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.orientation import to_slices
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.options import PostprocessOptions, SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.labels.terminology import label_set_of
from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.models.lora import merge_lora
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.phantom import abdomen_phantom
from HSAMSegmentLib.preprocess.intensity import scale_intensity
from HSAMSegmentLib.preprocess.rules import IntensityRule, SliceRule
from HSAMSegmentLib.runtime.devices import default_precision, default_threads
from HSAMSegmentLib.weights.loading import LoadedModel
from HSAMSegmentLib.weights.manifest import EncoderSource, License, Manifest

SIZE = 512
CLASSES = 8
WINDOW = IntensityRule("window", window_hu=(0.0, 1000.0))
ENCODER_GMAC = 98.8
"""Multiplications of ViT-B at 512 pixels in 10^9: projections 87.0, patches and neck 1.4, attention 10.4."""


def model() -> LoadedModel:
    """H-SAM ViT-B 512 with 8 classes and adapters of rank 5, filled by the rule of the golden files."""
    architecture = Architecture(EncoderSpec("sam_vit_b", SIZE), "hsam", CLASSES, form="released", lora_rank=5)
    network = build_network(architecture).eval()
    fill_state_dict(network.encoder, "image_encoder.")
    fill_state_dict(network.head, "mask_decoder.")
    manifest = Manifest(
        id="benchmark",
        title="Benchmark",
        modality="",
        architecture=architecture,
        encoder_source=EncoderSource(included=True),
        intensity=WINDOW,
        slices=SliceRule(),
        labels=label_set_of({value: f"class {value}" for value in range(1, CLASSES + 1)}),
        license=License("none"),
    )
    return LoadedModel(network, manifest, Path("benchmark.safetensors"))


def original(network: SegmentationNetwork) -> SegmentationNetwork:
    """The same network with segment-anything's own encoder."""
    merge_lora(network.encoder)
    encoder = sam_part("image_encoder", "ImageEncoderViT")(
        img_size=SIZE,
        embed_dim=768,
        depth=12,
        num_heads=12,
        mlp_ratio=4,
        out_chans=256,
        qkv_bias=True,
        norm_layer=lambda width: nn.LayerNorm(width, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=(2, 5, 8, 11),
    )
    encoder.load_state_dict(network.encoder.state_dict())
    return SegmentationNetwork(encoder=encoder, head=network.head, image_size=SIZE, num_classes=CLASSES).eval()


def dice(first: np.ndarray, second: np.ndarray) -> list[float]:
    """Dice of every class that one of both has."""
    result = []
    for value in range(1, CLASSES + 1):
        total = np.count_nonzero(first == value) + np.count_nonzero(second == value)
        if total:
            result.append(2.0 * np.count_nonzero((first == value) & (second == value)) / total)
    return result


def product_rate(dtype: torch.dtype, size: int = 1536) -> float:
    """Matrix product rate of this machine in GFLOP/s, best of five; 0 for a type that takes too long."""
    left = torch.randn(size, size).to(dtype)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        left @ left
        best = min(best, time.perf_counter() - start)
        if best > 2.0:
            break
    return 2.0 * size**3 / best / 1e9


class Stopwatch:
    """Adds up wall and CPU seconds; on a busy machine, CPU seconds with one thread are the fairer ones."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> None:
        self._started = (time.perf_counter(), time.process_time())

    def __exit__(self, *exception: object) -> None:
        self.wall += time.perf_counter() - self._started[0]
        self.cpu += time.process_time() - self._started[1]


def main() -> None:
    """Alternate both routes over chunks of slices and print times, ratio, Dice and the machine's limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=60)
    parser.add_argument("--chunk", type=int, default=6)
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--columns", type=int, default=320)
    parser.add_argument("--threads", type=int, default=default_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    geometry = Geometry(
        (arguments.columns, arguments.rows, arguments.slices), (1.1, 1.1, 4.0), (-175.0, -175.0, -120.0)
    )
    volume, _ = abdomen_phantom(geometry=geometry)
    plain_network = original(model().network)
    options = SegmentOptions(threads=arguments.threads, postprocess=PostprocessOptions(False, False, 0.0))
    segmenter = Segmenter(model(), device="cpu", options=options)
    ours, plain, ours_labels, plain_labels = Stopwatch(), Stopwatch(), [], []
    segment_stack(plain_network, np.zeros((1, 64, 64), np.float32))
    for start in range(0, arguments.slices, arguments.chunk):
        part = volume.array[start : start + arguments.chunk]
        shape = (geometry.size[0], geometry.size[1], len(part))
        chunk = Volume(part, Geometry(shape, geometry.spacing_mm))
        with ours:
            result = segmenter.segment(chunk)
        with plain:
            stack, frame = to_slices(scale_intensity(part, WINDOW), chunk.geometry)
            labels = frame.to_volume(segment_stack(plain_network, stack))
        ours_labels.append(result.segmentation.array)
        plain_labels.append(labels)
        done = start + len(part)
        print(f"{done:3d} slices: ours {ours.wall / done:.2f}, straightforward {plain.wall / done:.2f} s per slice")
    report(ours, plain, np.concatenate(ours_labels), np.concatenate(plain_labels))


def report(ours: Stopwatch, plain: Stopwatch, ours_labels: np.ndarray, plain_labels: np.ndarray) -> None:
    """Print ratios, agreement and how far the machine's own limit is."""
    count, scores = len(ours_labels), dice(ours_labels, plain_labels)
    rate, half = product_rate(torch.float32), product_rate(torch.bfloat16)
    used = "used" if default_precision("cpu").dtype else "not used"
    print(f"ratio of wall times {plain.wall / ours.wall:.2f}, of CPU times {plain.cpu / ours.cpu:.2f}")
    print(f"CPU seconds per slice: ours {ours.cpu / count:.2f}, straightforward {plain.cpu / count:.2f}")
    print(f"Dice of both label maps: mean {np.mean(scores):.5f}, least {min(scores):.5f}")
    print(f"matrix products here: float32 {rate:.0f}, bfloat16 {half:.1f} GFLOP/s (half precision {used})")
    print(f"the encoder's products alone need {2.0 * ENCODER_GMAC / rate:.2f} s per slice at that rate")


if __name__ == "__main__":
    main()
