"""What helps to learn from one scan: variants of the teaching step, each for the same number of steps.

Taught on all slices of one scan, judged on the held-out scans of the same set by the Dice of the raw network output
(both stages, one view). Each line changes one thing against the line "default", except where its name says more.

    W="--without cardiac-mr-bssfp --state Scratch/unseen.training"
    python Scripts/train_embedded.py $W --minutes 26
    python Scripts/export_embedded.py $W --models Scratch/unseen --not-judged
    python Testing/Benchmarks/bench_adaptation.py --start Scratch/unseen/abdomen-mr-t2.safetensors
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from bench_few_shot import read
from torch import nn

from HSAMSegmentLib.checkpoints.loading import load_model
from HSAMSegmentLib.models.builder import build_network
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.training.augment import AugmentRule, augment
from HSAMSegmentLib.training.averaging import WeightAverage
from HSAMSegmentLib.training.batches import gather
from HSAMSegmentLib.training.embedded_tasks import TASKS, EmbeddedTask, dataset_cases
from HSAMSegmentLib.training.focus import WHOLE_VIEW_SHARE, find_focus
from HSAMSegmentLib.training.learner import AVERAGE_DECAY, warmed_cosine_share
from HSAMSegmentLib.training.losses import TEACHING_SMOOTHING, hsam_loss
from HSAMSegmentLib.training.optimizing import GRADIENT_LIMIT, make_optimizer, set_rate
from HSAMSegmentLib.training.plan import augment_rule
from HSAMSegmentLib.training.sampling import BalancedSampler
from HSAMSegmentLib.training.slice_bank import SliceBank, build_slice_bank
from HSAMSegmentLib.training.transfer import transfer
from HSAMSegmentLib.training.validation import predict_slices
from HSAMSegmentLib.volumes.rules import PredictionRule

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
BATCH = 4
RATE = 1e-3
LAST_STAGE_WEIGHT = 0.6
THREE_VIEWS = ((0.0, 1.0), (15.0, 1.0), (-15.0, 1.0))
WIDER = AugmentRule(
    rotation_degrees=60.0,
    scale=(0.6, 1.6),
    shift_px=12.0,
    elastic_px=6.0,
    gamma=(0.4, 2.5),
    contrast=(0.5, 1.7),
    brightness=0.15,
    bias_field=0.4,
    noise=0.08,
    blur_probability=0.3,
    lone_slice_probability=0.3,
    swap_neighbors=True,
)


@dataclass(frozen=True)
class Variant:
    """One way of learning.

    Attributes:
        rule: of the views.
        head: whether the head starts from the starting model's, too, where it fits.
        encoder_share: factor on the encoder's rate.
        any_slice_share: see `BalancedSampler`.
        context: see `SliceRule`.
        times: factor on the steps.
    """

    rule: AugmentRule
    head: bool = True
    encoder_share: float = 0.5
    any_slice_share: float = 0.35
    context: str = "adjacent"
    times: float = 1.0


VARIANTS = {
    "default": Variant(augment_rule(1)),
    "a new head": Variant(augment_rule(1), head=False),
    "a new head, views as for many scans": Variant(augment_rule(100), head=False),
    "wider views": Variant(WIDER),
    "the slice alone, without its neighbors": Variant(augment_rule(1), context="repeat"),
    "a tenth of the draws from any slice": Variant(augment_rule(1), any_slice_share=0.1),
    "a fifth of the rate for the encoder": Variant(augment_rule(1), encoder_share=0.2),
    "more than twice the steps": Variant(augment_rule(1), times=20 / 9),
}


def start_network(task: EmbeddedTask, start: str, *, with_head: bool) -> SegmentationNetwork:
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


def learn(network: SegmentationNetwork, bank: SliceBank, variant: Variant, steps: int, num_classes: int) -> nn.Module:
    """The averaged network after some steps of the teaching's own kind."""
    average = WeightAverage(network, decay=AVERAGE_DECAY)
    optimizer = make_optimizer(network, RATE, encoder_share=variant.encoder_share)
    sampler = BalancedSampler([bank], num_classes=num_classes, any_slice_share=variant.any_slice_share)
    focus, side = find_focus([bank], network.image_size), network.image_size
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        set_rate(optimizer, RATE * warmed_cosine_share(step, step / steps))
        items = sampler.draw(BATCH, generator)
        whole = focus is None or float(torch.rand(1, generator=generator)) < WHOLE_VIEW_SHARE
        size = (side, side) if whole else focus.size
        centers = None if whole else torch.tensor([focus.centers_px[item.bank] for item in items])
        images, labels = gather((bank,), items)
        images, labels = augment(images, labels, variant.rule, size=size, generator=generator, centers_px=centers)
        stages = network.train()(images.contiguous(memory_format=torch.channels_last), labels).stages
        loss = hsam_loss(stages, labels, last_weight=LAST_STAGE_WEIGHT, dice_weight=0.5, smoothing=TEACHING_SMOOTHING)
        optimizer.zero_grad()
        (2.0 * loss).backward()
        nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_LIMIT)
        optimizer.step()
        average.update(network)
    return average.network.eval()


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
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = next(item for item in TASKS if item.id == options.task)
    count = len(task.labels)
    taught = read(task, [dataset_cases(DATA / task.folder)[0].id])[0]
    cases = read(task, list(task.validation))
    for name in options.variants:
        variant = VARIANTS[name]
        slices = replace(task.slices, context=variant.context)
        banks = [
            build_slice_bank(case, slices=slices, intensity=task.intensity, image_size=task.image_size)
            for case in (taught, *cases)
        ]
        torch.manual_seed(0)
        network = start_network(task, options.start, with_head=variant.head)
        network = learn(network, banks[0], variant, round(options.steps * variant.times), count)
        print(f"{name}: {mean_dice(network, banks[1:], count, PredictionRule()):.3f}", flush=True)
        if name == "default":
            for stages, views in (("last", THREE_VIEWS[:1]), ("last", THREE_VIEWS)):
                dice = mean_dice(network, banks[1:], count, PredictionRule(stages, views))
                print(f"  read from the {stages} stage in {len(views)} view(s): {dice:.3f}", flush=True)


if __name__ == "__main__":
    main()
