"""An epoch from kept features of a frozen encoder against an epoch that encodes every view anew.

The encoder is SAM ViT-B (random weights: time does not depend on them). An epoch is one view of each slice. Both sides
do the same learning step; the second encodes first.

    python Testing/Benchmarks/bench_frozen_epoch.py --sizes 512 1024 --slices 4 --heads hsam autosam cnn linear
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from HSAMSegmentLib.models.architecture import Architecture, EncoderSpec
from HSAMSegmentLib.models.builder import build_network
from HSAMSegmentLib.training.adaptation import FROZEN, SplitNetwork, set_trainable
from HSAMSegmentLib.training.feature_cache import FeatureCache
from HSAMSegmentLib.training.learner import Learner
from HSAMSegmentLib.training.losses import hsam_loss

CLASSES = 4


class Encoding:
    """Encodes a slice, then decodes it."""

    def __init__(self, split: SplitNetwork, size: int, slices: int) -> None:
        self.split = split
        self.images = torch.rand(slices, 3, size, size, generator=torch.Generator().manual_seed(0))
        self.labels = torch.randint(0, CLASSES + 1, (slices, size, size), generator=torch.Generator().manual_seed(1))
        self.next = 0

    def forward(self, generator: torch.Generator):
        """One slice after the other."""
        index = self.next % len(self.images)
        self.next += 1
        labels = self.labels[index : index + 1]
        return self.split.learning_part(self.split.frozen_part(self.images[index : index + 1]), labels), labels


class Kept(Encoding):
    """Reads kept features, then decodes them."""

    def keep(self, cache: FeatureCache) -> None:
        """Encode every slice once."""
        self.cache = cache
        for index in range(len(self.images)):
            self.cache.write(
                index, self.split.frozen_part(self.images[index : index + 1]), self.labels[index : index + 1]
            )

    def forward(self, generator: torch.Generator):
        """One slice after the other."""
        kept, labels = self.cache.read([self.next % len(self.images)])
        self.next += 1
        return self.split.learning_part(kept, labels), labels


def epoch_seconds(learner: Learner, batches: Encoding, slices: int) -> float:
    """Seconds of one epoch."""
    started = time.perf_counter()
    for _ in range(slices):
        learner.step(batches, lambda stages, labels: hsam_loss(stages, labels, last_weight=0.6), 0.5)
    return time.perf_counter() - started


def measure(encoder: str, head: str, size: int, slices: int) -> None:
    """Print one line."""
    torch.manual_seed(0)
    network = build_network(
        Architecture(EncoderSpec(encoder, size), head, CLASSES, form="paper" if head == "hsam" else "")
    )
    set_trainable(network, FROZEN)
    split = SplitNetwork(network, FROZEN)
    learner = Learner(network, rate=1e-4, encoder_share=1.0, seed=0, device=torch.device("cpu"))
    anew, kept = Encoding(split, size, slices), Kept(split, size, slices)
    with FeatureCache(slices, tuple(split.shapes(size)), (size, size)) as cache:
        kept.keep(cache)
        epoch_seconds(learner, kept, 1)
        cached = epoch_seconds(learner, kept, slices)
        encoded = epoch_seconds(learner, anew, slices)
    print(
        f"{encoder} {size} px: encoding anew {encoded / slices:.2f} s per slice, kept {cached / slices:.2f} s per slice"
    )
    print(f"{encoder} {size} px: an epoch from kept features costs 1/{encoded / cached:.1f}", flush=True)


def main() -> None:
    """Measure every size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="sam_vit_b")
    parser.add_argument("--heads", nargs="+", default=["hsam"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--slices", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for size in options.sizes:
        for head in options.heads:
            measure(options.encoder, head, size, options.slices)


if __name__ == "__main__":
    main()
