"""What helps to learn from one scan: variants of the fine-tuning step, each for the same numbers of steps.

Trained on all slices of one scan, judged on the held-out scans of the same set by the Dice of the network's output,
read as in segmenting but with all its pieces. Each line changes one thing against the line "default".

    W="--without cardiac-mr-bssfp --state Scratch/unseen.training"
    python Scripts/train_builtin.py $W --minutes 26
    python Scripts/export_builtin.py $W --models Scratch/unseen --not-judged
    python Testing/Benchmarks/bench_adaptation.py --start Scratch/unseen/abdomen-mr.safetensors
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from bench_few_shot import read
from torch import nn
from unet_from_scratch import framed

from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.preprocess.rules import PredictionRule
from HSAMSegmentLib.training.data.augment import AugmentRule, augment
from HSAMSegmentLib.training.data.batches import WHOLE_SLICE_SHARE, find_label_crop, gather
from HSAMSegmentLib.training.data.sampling import BalancedSampler
from HSAMSegmentLib.training.data.slice_bank import SliceBank
from HSAMSegmentLib.training.initialization import transfer
from HSAMSegmentLib.training.loop.losses import DICE_SMOOTHING, hsam_loss
from HSAMSegmentLib.training.loop.optimizer import GRADIENT_LIMIT, WeightAverage, make_optimizer, set_rate
from HSAMSegmentLib.training.loop.trainer import (
    AVERAGE_DECAY,
    STEADY_AVERAGE_DECAY,
    warmed_constant_share,
    warmed_cosine_share,
)
from HSAMSegmentLib.training.loop.validator import predict_slices
from HSAMSegmentLib.training.recipe import augment_rule, prediction_rule, widened
from HSAMSegmentLib.weights.loading import load_model
from recipes.builtin_tasks import TASKS, BuiltinTask, dataset_cases

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
BATCH = 4
RATE = 7e-4
LAST_STAGE_WEIGHT = 0.6
FEW, MANY = augment_rule(1), augment_rule(100)


@dataclass(frozen=True)
class Variant:
    """One way of learning.

    Attributes:
        first: of the views at the first step.
        last: of the views later on.
        schedule: of the rate, "constant" or "cosine".
        head: whether the head starts from the starting model's, too, where it fits.
        encoder_share: factor on the encoder's rate.
    """

    first: AugmentRule = MANY
    last: AugmentRule = FEW
    schedule: str = "constant"
    head: bool = True
    encoder_share: float = 0.5


VARIANTS = {
    "default": Variant(),
    "views as for many scans": Variant(last=MANY),
    "wide views from the first step on": Variant(first=FEW),
    "a rate that falls": Variant(schedule="cosine"),
    "a new head": Variant(head=False),
    "a fifth of the rate for the encoder": Variant(encoder_share=0.2),
}


def start_network(task: BuiltinTask, start: str, *, with_head: bool) -> SegmentationNetwork:
    """A network of the task with the encoder, and the head where it fits, of another model."""
    network = build_network(task.architecture)
    source = load_model(start)
    transfer(
        source.network.state_dict() if with_head else _encoder_alone(source.network),
        network,
        old_labels=None,
        new_labels=source.manifest.labels,
    )
    return network.to(memory_format=torch.channels_last)


def _encoder_alone(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in network.state_dict().items() if name.startswith("encoder.")}


def learn(
    network: SegmentationNetwork, bank: SliceBank, variant: Variant, steps: Sequence[int], num_classes: int
) -> Iterator[nn.Module]:
    """The averaged network after each of some numbers of steps of the fine-tuning's own kind."""
    steady = variant.schedule == "constant"
    average = WeightAverage(network, decay=STEADY_AVERAGE_DECAY if steady else AVERAGE_DECAY)
    share_of = warmed_constant_share if steady else warmed_cosine_share
    optimizer = make_optimizer(network, RATE, encoder_share=variant.encoder_share)
    sampler = BalancedSampler([bank], num_classes=num_classes)
    focus, side = find_label_crop([bank], network.image_size), network.image_size
    generator = torch.Generator().manual_seed(0)
    for step in range(steps[-1]):
        set_rate(optimizer, RATE * share_of(step, step / steps[-1]))
        items = sampler.draw(BATCH, generator)
        whole = focus is None or float(torch.rand(1, generator=generator)) < WHOLE_SLICE_SHARE
        size = (side, side) if whole else focus.size
        centers = None if whole else torch.tensor([focus.centers_px[item.bank] for item in items])
        rule = widened(variant.first, variant.last, step)
        images, labels = augment(*gather((bank,), items), rule, size=size, generator=generator, centers_px=centers)
        stages = network.train()(images.contiguous(memory_format=torch.channels_last), labels).stages
        loss = hsam_loss(stages, labels, last_weight=LAST_STAGE_WEIGHT, dice_weight=0.5, smoothing=DICE_SMOOTHING)
        optimizer.zero_grad()
        (2.0 * loss).backward()
        nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_LIMIT)
        optimizer.step()
        average.update(network)
        if step + 1 in steps:
            yield average.network.eval()


def mean_dice(network: nn.Module, held: list[SliceBank], num_classes: int, rule: PredictionRule) -> float:
    """Over scans and structures."""
    values = []
    for bank in held:
        found, truth = predict_slices(network, bank, range(len(bank)), rule=rule), bank.reference.numpy()
        for value in range(1, num_classes + 1):
            size = np.count_nonzero(found == value) + np.count_nonzero(truth == value)
            values.append(2.0 * np.count_nonzero((found == value) & (truth == value)) / max(1, size))
    return float(np.mean(values))


def main() -> None:
    """Learn in every way and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=[task.id for task in TASKS], default="cardiac-mr-bssfp")
    parser.add_argument("--start", required=True, help="model that has not seen the data set")
    parser.add_argument("--steps", type=int, nargs="+", default=[250, 750], help="ascending; judged after each")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = next(item for item in TASKS if item.id == options.task)
    count = len(task.labels)
    names = [dataset_cases(DATA / task.folder)[0].id, *task.validation]
    bank, *held = (framed(case, task) for case in read(task, names))
    rule = prediction_rule(task.architecture, 1)
    for name in options.variants:
        variant = VARIANTS[name]
        torch.manual_seed(0)
        network = start_network(task, options.start, with_head=variant.head)
        for steps, state in zip(options.steps, learn(network, bank, variant, options.steps, count)):
            print(f"{name}, {steps} steps: {mean_dice(state, held, count, rule):.3f}", flush=True)


if __name__ == "__main__":
    main()
