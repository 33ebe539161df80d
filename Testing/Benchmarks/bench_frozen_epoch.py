"""An epoch from kept features of a frozen encoder against an epoch that encodes every view anew.

The encoder is SAM ViT-B (random weights: time does not depend on them), the slices are a phantom's with four organs. An
epoch draws as many views as there are slices, in batches of four, and runs the fine-tuning's own step: reading the kept
features, the head on the cells that a step decodes, loss, gradient, optimizer, average. An epoch that encodes anew does
the same step and encodes each view before; encoding costs the same for every head and is measured once per size.

Seconds are those of the processor, so that other programs hardly matter.

    python Testing/Benchmarks/bench_frozen_epoch.py --sizes 512 1024 --heads hsam autosam cnn linear
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import nn

from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.phantom import abdomen_phantom, phantom_geometry
from HSAMSegmentLib.preprocess.rules import IntensityRule, SliceRule
from HSAMSegmentLib.training.data.augment import AugmentRule
from HSAMSegmentLib.training.data.batches import TrainingSet
from HSAMSegmentLib.training.data.cases import make_case
from HSAMSegmentLib.training.data.sampling import BalancedSampler
from HSAMSegmentLib.training.data.slice_bank import build_slice_bank
from HSAMSegmentLib.training.features.adaptation import FROZEN, SplitNetwork, set_trainable
from HSAMSegmentLib.training.features.cached_features import (
    CachedFeatureBatches,
    CachedFeatures,
    CacheOptions,
    UnlimitedEncoding,
)
from HSAMSegmentLib.training.loop.losses import autosam_loss, hsam_loss
from HSAMSegmentLib.training.loop.trainer import Objective, Trainer
from HSAMSegmentLib.training.recipe import NARROW_CNN_OPTIONS

CPU = torch.device("cpu")
BATCH = 4


class Given(nn.Module):
    """Stands in for the encoder, so that a head is measured without encoding: always the same embedding."""

    def __init__(self, embedding: torch.Tensor) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """As many embeddings as images."""
        return self.embedding.expand(len(images), -1, -1, -1)


class OneView(UnlimitedEncoding):
    """Keeps the slices themselves: how many views there are does not matter to the time of a step."""

    def views(self, seconds: float) -> float:
        """See `Pace`."""
        return 1.0


def training_set_of(size: int, slices: int) -> TrainingSet:
    """Slices of the phantom, framed to the size."""
    volume, truth = abdomen_phantom(geometry=phantom_geometry((256, 256, slices), (1.25, 1.25, 200.0 / slices)))
    bank = build_slice_bank(make_case(volume, truth), slices=SliceRule(), intensity=IntensityRule(), image_size=size)
    return TrainingSet((bank,), BalancedSampler([bank], num_classes=len(truth.labels)), AugmentRule(), size, BATCH)


def spent(work: Callable[[], object]) -> float:
    """Processor seconds of some work."""
    began = time.process_time()
    work()
    return time.process_time() - began


def encoding_seconds(encoder: str, size: int, slices: int) -> tuple[float, torch.Tensor]:
    """Of one view, and an embedding."""
    network = build_network(Architecture(EncoderSpec(encoder, size), "linear", 1)).eval()
    images = torch.rand(slices, 3, size, size)
    with torch.no_grad():
        embedding = network.encode(images[:1]).embedding
        return spent(lambda: [network.encode(image[None]) for image in images]) / slices, embedding


def step_seconds(head: str, size: int, draw: TrainingSet, embedding: torch.Tensor, epochs: int) -> float:
    """Of the learning step, per view."""
    torch.manual_seed(0)
    form = "paper" if head == "hsam" else ""
    classes = len(draw.sampler.by_label)
    options = NARROW_CNN_OPTIONS if head == "cnn" else {}
    network = build_network(Architecture(EncoderSpec("sam_vit_b", size), head, classes, form=form, options=options))
    set_trainable(network, FROZEN)
    network.encoder = Given(embedding)
    trainer = Trainer(network, rate=1e-4, encoder_share=1.0, seed=0, device=CPU)
    split = SplitNetwork(network, FROZEN)
    with tempfile.TemporaryDirectory() as folder:
        rules = CacheOptions(capacity_bytes=1 << 30, parent=Path(folder), limits=OneView())
        kept = CachedFeatures(split, draw, (), CPU, torch.Generator().manual_seed(0), rules)
        batches = CachedFeatureBatches(split, draw, CPU, kept)
        steps = max(1, len(draw.sampler) // BATCH)
        objective = Objective(batches, loss_of(head))
        trainer.step([objective], 0.5)
        seconds = spent(lambda: [trainer.step([objective], 0.5) for _ in range(epochs * steps)])
        batches.close()
    return seconds / (epochs * steps * BATCH)


def loss_of(head: str) -> Callable[..., torch.Tensor]:
    """The head's loss, as in fine-tuning."""
    if head == "hsam":
        return lambda stages, labels: hsam_loss(stages, labels, last_weight=0.6, dice_weight=0.5)
    return lambda stages, labels: autosam_loss(stages[0], labels)


def main() -> None:
    """Measure every size and head."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="sam_vit_b")
    parser.add_argument("--heads", nargs="+", default=["hsam", "autosam", "cnn", "linear"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--slices", type=int, default=8, help="of the phantom")
    parser.add_argument("--encoded", type=int, default=2, help="slices to measure the encoder by")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for size in options.sizes:
        encoding, embedding = encoding_seconds(options.encoder, size, options.encoded)
        print(f"{options.encoder} {size} px: encoding takes {encoding:.2f} s per view", flush=True)
        draw = training_set_of(size, options.slices)
        for head in options.heads:
            step = step_seconds(head, size, draw, embedding, options.epochs)
            print(
                f"{head} {size} px: a step takes {step:.3f} s per view, an epoch from kept features costs "
                f"1/{(encoding + step) / step:.1f} of one that encodes anew",
                flush=True,
            )


if __name__ == "__main__":
    main()
