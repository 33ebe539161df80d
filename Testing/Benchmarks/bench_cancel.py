"""How soon a cancel is answered on the CPU inside of a slice, with SAM's ViT-B at 1024 pixels.

python Testing/Benchmarks/bench_cancel.py [--seconds 1.5 3 5 8]
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path

import numpy as np

from HSAMSegmentLib.errors import CancelledError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.labels.terminology import label_set_of
from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.preprocess.rules import IntensityRule, SliceRule
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.weights.loading import LoadedModel
from HSAMSegmentLib.weights.manifest import EncoderSource, License, Manifest


def model() -> LoadedModel:
    """AutoSAM's ViT head on ViT-B, untrained."""
    architecture = Architecture(EncoderSpec("sam_vit_b", 1024), "autosam", 3)
    manifest = Manifest(
        id="benchmark",
        title="Benchmark",
        modality="",
        architecture=architecture,
        encoder_source=EncoderSource(included=True),
        intensity=IntensityRule("slice_minmax"),
        slices=SliceRule(),
        labels=label_set_of({1: "one", 2: "two", 3: "three"}),
        license=License("none"),
    )
    return LoadedModel(build_network(architecture).eval(), manifest, Path("benchmark.safetensors"))


def main() -> None:
    """Cancel after the given seconds and print how long the answer took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.5, 3.0, 5.0, 8.0])
    arguments = parser.parse_args()
    geometry = Geometry((300, 300, 20), (1.0, 1.0, 5.0))
    volume = Volume(np.random.default_rng(0).integers(0, 500, geometry.shape).astype(np.int16), geometry)
    segmenter = Segmenter(model(), device="cpu")
    for seconds in arguments.seconds:
        token = CancelToken()
        timer = threading.Timer(seconds, token.cancel)
        began = time.perf_counter()
        timer.start()
        try:
            segmenter.segment(volume, cancel=token)
            print(f"finished before the cancel at {seconds:.1f} s")
        except CancelledError:
            print(f"cancelled at {seconds:.1f} s, answered after {time.perf_counter() - began - seconds:.2f} s")
        timer.cancel()


if __name__ == "__main__":
    main()
