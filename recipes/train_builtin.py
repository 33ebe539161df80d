"""Trains the embedded models: one compact encoder for all tasks, an H-SAM head for each, a batch of each per step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from HSAMSegmentLib.errors import TrainingError
from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.preprocess.rules import PredictionRule
from HSAMSegmentLib.training.data.augment import augment
from HSAMSegmentLib.training.data.batches import gather
from HSAMSegmentLib.training.data.cases import Case, make_case
from HSAMSegmentLib.training.data.sampling import BalancedSampler
from HSAMSegmentLib.training.data.slice_bank import SliceBank, build_slice_bank
from HSAMSegmentLib.training.loop.checkpointer import Checkpointer
from HSAMSegmentLib.training.loop.losses import DICE_SMOOTHING, hsam_loss
from HSAMSegmentLib.training.loop.optimizer import (
    GRADIENT_LIMIT,
    cosine_share,
    make_optimizer,
    mixed_precision,
    set_rate,
)
from HSAMSegmentLib.training.loop.validation import ValidationResult, validate, whole_case
from HSAMSegmentLib.training.loop.weight_average import WeightAverage
from HSAMSegmentLib.training.state_files import load_state, save_state
from recipes.builtin_tasks import TASKS, BuiltinTask, DatasetCase, dataset_cases

logger = logging.getLogger(__name__)

LAST_STAGE_WEIGHT = 0.75
DICE_WEIGHT = 0.5
WARMUP_STEPS = 100


@dataclass(frozen=True)
class TaskData:
    """Banks of one task."""

    task: BuiltinTask
    training: tuple[SliceBank, ...]
    validation: tuple[SliceBank, ...]
    sampler: BalancedSampler


@dataclass(frozen=True)
class Settings:
    """How long and how fast.

    Attributes:
        minutes: of training in all, earlier runs of the same state included.
        rate: highest learning rate.
        seed: of initial weights and of all draws.
        device: "cpu" or "cuda"; on the latter in mixed precision.
        validate_minutes: time between validations.
        average_decay: see `WeightAverage`.
        batch_factor: batches this many times larger than the tasks say, for a GPU.
    """

    minutes: float
    rate: float = 8e-4
    seed: int = 0
    device: str = "cpu"
    validate_minutes: float = 11.0
    average_decay: float = 0.998
    batch_factor: int = 1


def load_task(task: BuiltinTask, data_folder: Path, *, only_validation: bool = False) -> TaskData:
    """Read the scans of a task and split them.

    Args:
        task: which.
        data_folder: holds a folder per data set.
        only_validation: do not read the scans for training.

    Raises:
        TrainingError: if the data set or a validation scan is missing.
    """
    entries = dataset_cases(data_folder / task.folder)
    strange = set(task.validation) - {entry.id for entry in entries}
    if strange:
        raise TrainingError(f"The data set {task.folder} lacks the validation scans {', '.join(sorted(strange))}.")
    banks = {
        entry.id: build_slice_bank(
            dataset_case(entry, task),
            slices=task.slices,
            intensity=task.intensity,
            image_size=task.image_size,
        )
        for entry in entries
        if entry.id in task.validation or not only_validation
    }
    training = tuple(bank for name, bank in banks.items() if name not in task.validation)
    return TaskData(
        task=task,
        training=training,
        validation=tuple(banks[name] for name in task.validation),
        sampler=BalancedSampler(training, num_classes=len(task.labels)),
    )


def dataset_case(entry: DatasetCase, task: BuiltinTask) -> Case:
    """Read one scan of a data set; all its slices count as labeled."""
    drawn = read_volume(entry.label)
    labels = LabelSet(tuple(Label(value, name, (1.0, 1.0, 1.0)) for value, name in enumerate(task.labels, start=1)))
    segmentation = Segmentation(drawn.array.astype("uint8"), drawn.geometry, labels, entry.id)
    case = make_case(read_volume(entry.image), segmentation)
    return replace(case, labeled=None)


def build_networks(tasks: Sequence[BuiltinTask] = TASKS) -> nn.ModuleDict:
    """One network per task, all with the same encoder object."""
    networks = nn.ModuleDict({task.id: build_network(task.architecture) for task in tasks})
    encoder = networks[tasks[0].id].encoder
    encoder.initialize()
    for network in networks.values():
        network.encoder = encoder
    return networks.to(memory_format=torch.channels_last)


class BuiltinTraining:
    """Networks, optimizer, average and draws of a training that can stop and go on at any time."""

    def __init__(self, data: Sequence[TaskData], settings: Settings) -> None:
        """Build everything anew; `resume` then takes over an earlier state."""
        torch.manual_seed(settings.seed)
        self.data = data
        self.settings = settings
        self.device = torch.device(settings.device)
        self.networks = build_networks([item.task for item in data]).to(self.device)
        self.average = WeightAverage(self.networks, decay=settings.average_decay)
        self.optimizer = make_optimizer(self.networks, settings.rate)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.steps = 0
        self.seconds = 0.0
        self.losses: dict[str, float] = {}

    @property
    def progress(self) -> float:
        """Part of the minutes that are used up."""
        return self.seconds / (60.0 * self.settings.minutes)

    def step(self) -> None:
        """One step of the optimizer on a batch of every task.

        Raises:
            TrainingError: if the loss is not a number.
        """
        started = time.monotonic()
        rate = self.settings.rate * min(1.0, (self.steps + 1) / WARMUP_STEPS) * cosine_share(self.progress)
        set_rate(self.optimizer, rate)
        self.optimizer.zero_grad()
        for item in self.data:
            self._backward(item)
        nn.utils.clip_grad_norm_(self.networks.parameters(), GRADIENT_LIMIT)
        self.optimizer.step()
        self.average.update(self.networks)
        self.steps += 1
        self.seconds += time.monotonic() - started

    def validate(self, *, quick: bool = True) -> dict[str, ValidationResult]:
        """Dice of the averaged weights on the validation scans; quick: every third slice of thin-sliced scans."""
        started = time.monotonic()
        results = {}
        for item in self.data:
            results[item.task.id] = validate(
                self.average.network[item.task.id],
                [whole_case(bank) for bank in item.validation],
                num_classes=len(item.task.labels),
                device=self.device,
                step=3 if quick and len(item.validation[0]) > 60 else 1,
                rule=PredictionRule(stages=item.task.prediction.stages),
            )
        self.seconds += time.monotonic() - started
        return results

    def state(self) -> dict:
        """Everything that `resume` needs."""
        return {
            "networks": self.networks.state_dict(),
            "average": self.average.network.state_dict(),
            "average_updates": self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "steps": self.steps,
            "seconds": self.seconds,
            "taught": {item.task.id: [bank.name for bank in item.training] for item in self.data},
        }

    def resume(self, path: Path) -> None:
        """Go on where `state` was saved; from a file with the averaged weights alone, start anew from these."""
        state = load_state(path)
        if "networks" not in state:
            self.networks.load_state_dict(state["average"])
            self.average.network.load_state_dict(state["average"])
            return
        self.networks.load_state_dict(state["networks"])
        self.average.network.load_state_dict(state["average"])
        self.average.updates = state["average_updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.steps, self.seconds = state["steps"], state["seconds"]

    def _backward(self, item: TaskData) -> None:
        task = item.task
        images, labels = self._batch(item)
        network = self.networks[task.id].train()
        with mixed_precision(self.device):
            stages = network(images, labels).stages
        loss = hsam_loss(
            stages, labels, last_weight=LAST_STAGE_WEIGHT, dice_weight=DICE_WEIGHT, smoothing=DICE_SMOOTHING
        )
        if not torch.isfinite(loss):
            raise TrainingError(f"The loss of {task.id} is not a number at step {self.steps}; lower the rate.")
        (2.0 * loss).backward()
        before = self.losses.get(task.id, float(loss.detach()))
        self.losses[task.id] = 0.95 * before + 0.05 * float(loss.detach())

    def _batch(self, item: TaskData) -> tuple[Tensor, Tensor]:
        task = item.task
        full = task.full_size_every > 1 and self.steps % task.full_size_every == 0
        size = (task.image_size, task.image_size) if full else task.train_size
        drawn = item.sampler.draw(task.batch_size * self.settings.batch_factor, self.generator)
        images, labels = (tensor.to(self.device) for tensor in gather(item.training, drawn))
        images, labels = augment(images, labels, task.augment, size=size, generator=self.generator)
        return images.contiguous(memory_format=torch.channels_last), labels


def train(
    trainer: BuiltinTraining,
    state_file: Path,
    *,
    report: Callable[[str], None] = logger.info,
) -> dict[str, ValidationResult]:
    """Train until the minutes are used up; the state is saved at a steady pace.

    Args:
        trainer: new or resumed.
        state_file: where the state goes.
        report: gets a line per validation and every twentieth step.

    Returns:
        The last validation, on all slices.
    """
    saver = Checkpointer(lambda: save_state(state_file, trainer.state()), every_seconds=60.0)
    last_validation = trainer.seconds
    while trainer.progress < 1.0:
        trainer.step()
        saver.tick()
        if trainer.steps % 20 == 0:
            losses = ", ".join(f"{name} {value:.3f}" for name, value in trainer.losses.items())
            report(f"step {trainer.steps}, {trainer.seconds / 60:.1f} min, losses: {losses}")
        if trainer.seconds - last_validation > 60.0 * trainer.settings.validate_minutes:
            report(describe(trainer.validate()))
            last_validation = trainer.seconds
    saver.now()
    return trainer.validate(quick=False)


def describe(results: dict[str, ValidationResult]) -> str:
    """One line: mean Dice of each task and Dice per label."""
    parts = []
    for name, result in results.items():
        parts.append(f"{name} {result.mean:.4f} ({', '.join(f'{value:.3f}' for value in result.dice)})")
    return "validation: " + "; ".join(parts)
