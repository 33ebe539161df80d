"""Train the built-in models: one compact encoder for all tasks, an H-SAM head per task, a batch of each per step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.interface import StageLogits
from HSAMSegmentLib.preprocess.rules import PredictionRule
from HSAMSegmentLib.training import ranks
from HSAMSegmentLib.training.data.augment import augment
from HSAMSegmentLib.training.initialization import TransferReport, transfer
from HSAMSegmentLib.training.loop.checkpointer import Checkpointer, load_state
from HSAMSegmentLib.training.loop.fit import fit
from HSAMSegmentLib.training.loop.losses import hsam_loss
from HSAMSegmentLib.training.loop.trainer import LossOf, Objective, Trainer
from HSAMSegmentLib.training.loop.validator import ValidationResult, validate
from HSAMSegmentLib.weights.loading import LoadedModel
from recipes.builtin_tasks import TASKS, BuiltinTask
from recipes.synthetic_contrast import hollow_structures, randomize_contrast
from recipes.task_data import TaskData

logger = logging.getLogger(__name__)

LAST_STAGE_WEIGHT = 0.75
LOSS_FACTOR = 2.0
WARMUP_STEPS = 100
SAVE_SECONDS = 60.0
_MANY_SLICES = 60


@dataclass(frozen=True)
class Settings:
    """Duration and speed of the training.

    Attributes:
        minutes: training time in total, including earlier runs with the same state.
        rate: highest learning rate.
        seed: seed of the initial weights and of all random draws.
        device: "cpu" or "cuda"; the latter uses bfloat16.
        validate_minutes: interval between validations.
        average_decay: see `WeightAverage`.
        batch_factor: factor on the tasks' batch sizes, to fill a GPU; these are per rank.
    """

    minutes: float
    rate: float = 8e-4
    seed: int = 0
    device: str = "cpu"
    validate_minutes: float = 11.0
    average_decay: float = 0.998
    batch_factor: int = 1


def build_networks(tasks: Sequence[BuiltinTask] = TASKS) -> nn.ModuleDict:
    """Build one network per task, all sharing the same encoder."""
    networks = nn.ModuleDict({task.id: build_network(task.architecture) for task in tasks})
    encoder: Any = networks[tasks[0].id].encoder
    encoder.initialize()
    for network in networks.values():
        network.encoder = encoder
    return cast(nn.ModuleDict, networks.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


class TaskBatches:
    """Draws crops of one task and runs its network."""

    def __init__(self, data: TaskData, network: nn.Module, settings: Settings, step: Callable[[], int]) -> None:
        """
        Args:
            data: slices on the training device.
            network: network of the task.
            settings: training settings.
            step: the current step.
        """
        self._data, self._network, self._factor, self._step = data, network, settings.batch_factor, step
        device = data.slices.device
        self._noise = (
            torch.Generator(device).manual_seed(settings.seed + ranks.rank()) if device.type == "cuda" else None
        )

    def forward(self, generator: torch.Generator) -> tuple[StageLogits, Tensor]:
        """Logits of all stages and labels [B, rows, columns] of a new batch."""
        images, labels = self.draw(generator)
        return self._network(images, labels), labels

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Augmented crops [B, 3, rows, columns] and their labels."""
        task, slices = self._data.task, self._data.slices
        is_full = task.full_size_every > 1 and self._step() % task.full_size_every == 0
        size = (task.image_size, task.image_size) if is_full else task.train_size
        count = (task.full_size_batch or task.batch_size) if is_full else task.batch_size
        items = ranks.part_of(self._data.sampler.draw(count * self._factor * ranks.world_size(), generator))
        images, labels = slices.gather(items)
        if task.contrast is not None:
            tissues, means = slices.gather_tissues(items)
            own = ranks.own_generator(generator)
            images = randomize_contrast(images, tissues, means, task.contrast, own)
            if task.contrast.lung_probability > 0:
                images, labels = hollow_structures(images, labels, tissues, task.contrast, own)
        is_centered = task.centers_on_labels and not is_full
        centers = slices.centers_px[[item.bank for item in items]] if is_centered else None
        images, labels = augment(
            images,
            labels,
            task.augment,
            size=size,
            generator=generator,
            centers_px=centers,
            noise_generator=self._noise,
        )
        return images.contiguous(memory_format=torch.channels_last), labels


def loss_of_task(task: BuiltinTask) -> LossOf:
    """The loss of a task: H-SAM's, with the task's Dice weight and smoothing."""

    def loss_of(stages: Sequence[Tensor], labels: Tensor) -> Tensor:
        return LOSS_FACTOR * hsam_loss(
            stages,
            labels,
            last_weight=LAST_STAGE_WEIGHT,
            dice_weight=task.dice_weight,
            smoothing=task.dice_smoothing,
        )

    return loss_of


class BuiltinTraining:
    """A training of one or more tasks that can be interrupted and resumed after any step."""

    def __init__(self, data: Sequence[TaskData], settings: Settings) -> None:
        """Initialize the networks; `resume` or `start_from` then replace their weights."""
        torch.manual_seed(settings.seed)  # the same weights on all ranks
        self.data = data
        self.settings = settings
        self.device = torch.device(settings.device)
        self.trainer = self._new_trainer(build_networks([item.task for item in data]).to(self.device))
        ranks.separate_noise(settings.seed)
        self.losses: dict[str, float] = {}
        self._earlier_seconds = 0.0
        self._validation_seconds = 0.0
        self._validated_at = 0.0
        self._agreed_seconds = 0.0
        self.objectives = [self._objective(item) for item in data]

    @property
    def seconds(self) -> float:
        """Time used for steps and validations, including earlier runs; see `agree` for several ranks."""
        if ranks.world_size() > 1:
            return self._agreed_seconds
        return self._own_seconds

    @property
    def _own_seconds(self) -> float:
        return self._earlier_seconds + self.trainer.seconds + self._validation_seconds

    def agree(self) -> None:
        """Synchronize the time of the first rank, so that all ranks validate and end at the same step."""
        self._agreed_seconds = ranks.from_first(lambda: self._own_seconds)

    @property
    def progress(self) -> float:
        """Fraction of the minutes that is used up."""
        return self.seconds / (60.0 * self.settings.minutes)

    @property
    def is_due(self) -> bool:
        """Whether to validate before the next step."""
        return self.seconds - self._validated_at > 60.0 * self.settings.validate_minutes

    @property
    def has_converged(self) -> bool:
        """Never: these trainings use all of their time."""
        return False

    def step(self) -> None:
        """Take one optimizer step on a batch of every task.

        Raises:
            NonFiniteLossError: if a loss is not finite.
        """
        self.trainer.step(self.objectives, self.progress)
        self.agree()
        for item, loss in zip(self.data, self.trainer.last_losses):
            value = loss / LOSS_FACTOR
            self.losses[item.task.id] = 0.95 * self.losses.get(item.task.id, value) + 0.05 * value

    def validate(self) -> None:
        """Validate the averaged weights, quickly, and log Dice."""
        sentence = describe(self.validation(quick=True))
        if ranks.is_first():
            logger.info(sentence)

    def validation(self, *, quick: bool = False) -> dict[str, ValidationResult]:
        """Dice of the averaged weights on the validation scans; if quick, on every third slice of thin-sliced scans."""
        began = time.monotonic()
        results = {}
        for item in self.data:
            network: Any = self.trainer.average.network[item.task.id]
            results[item.task.id] = validate(
                network,
                item.validation,
                num_classes=len(item.task.labels),
                device=self.device,
                step=3 if quick and len(item.validation[0].bank) > _MANY_SLICES else 1,
                rule=PredictionRule(stages=item.task.prediction.stages),
            )
        self._validation_seconds += time.monotonic() - began
        self.agree()
        self._validated_at = self.seconds
        return results

    def start_from(self, model: LoadedModel) -> dict[str, TransferReport]:
        """Copy the matching weights of a model into the networks of all tasks."""
        state, networks = model.network.state_dict(), self.trainer.network
        reports = {
            item.task.id: transfer(
                state,
                networks[item.task.id],
                old_labels=model.manifest.labels,
                new_labels=LabelSet(
                    tuple(Label(value, name, (1.0, 1.0, 1.0)) for value, name in enumerate(item.task.labels, start=1))
                ),
            )
            for item in self.data
        }
        self.trainer = self._new_trainer(networks)
        return reports

    def state(self) -> dict[str, Any]:
        """Everything that `resume` needs."""
        trainer = self.trainer
        return {
            "networks": trainer.network.state_dict(),
            "average": trainer.average.network.state_dict(),
            "average_updates": trainer.average.updates,
            "optimizer": trainer.optimizer.state_dict(),
            "generator": trainer.generator.get_state(),
            "torch_generator": torch.get_rng_state(),
            "steps": trainer.steps,
            "seconds": self.seconds,
            "taught": {item.task.id: list(item.scans) for item in self.data},
        }

    def resume(self, path: Path) -> None:
        """Continue from a saved `state`; a file with averaged weights only provides the initial weights.

        Raises:
            CheckpointError: if the file is damaged.
        """
        state, trainer = ranks.from_first(lambda: load_state(path)), self.trainer
        trainer.network.load_state_dict(state.get("networks", state["average"]))
        trainer.average.network.load_state_dict(state["average"])
        if "networks" not in state:
            return
        trainer.average.updates = state["average_updates"]
        trainer.optimizer.load_state_dict(state["optimizer"])
        trainer.generator.set_state(state["generator"])
        if "torch_generator" in state:
            torch.set_rng_state(state["torch_generator"])
        trainer.steps = state["steps"]
        ranks.separate_noise(trainer.steps)
        self._earlier_seconds = self._validated_at = state["seconds"]
        self.agree()

    def _new_trainer(self, networks: nn.ModuleDict) -> Trainer:
        settings = self.settings
        return Trainer(
            networks,
            rate=settings.rate,
            seed=settings.seed,
            device=self.device,
            average_decay=settings.average_decay,
            warmup_steps=WARMUP_STEPS,
        )

    def _objective(self, item: TaskData) -> Objective:
        network: Any = self.trainer.network[item.task.id]
        batches = TaskBatches(item, network, self.settings, lambda: self.trainer.steps)
        return Objective(batches, loss_of_task(item.task))


def train(
    training: BuiltinTraining, state_file: Path, *, save_seconds: float = SAVE_SECONDS
) -> dict[str, ValidationResult]:
    """Train until the minutes are used up, saving the state every minute and at the end.

    Args:
        training: new or resumed.
        state_file: file for the state.
        save_seconds: interval between saves.

    Returns:
        The last validation, on all slices.
    """
    checkpointer = Checkpointer(state_file, training.state, every_seconds=save_seconds)

    def step() -> None:
        training.step()
        checkpointer.tick()
        if training.trainer.steps % 20 == 0 and ranks.is_first():
            losses = ", ".join(f"{name} {value:.3f}" for name, value in training.losses.items())
            logger.info("step %d, %.1f min, losses: %s", training.trainer.steps, training.seconds / 60, losses)

    try:
        fit(step, lambda: training.progress >= 1.0, training)
    finally:
        checkpointer.save()
    return training.validation()


def describe(results: dict[str, ValidationResult]) -> str:
    """One line: mean Dice of each task, and Dice per label."""
    parts = []
    for name, result in results.items():
        parts.append(f"{name} {result.mean:.4f} ({', '.join(f'{value:.3f}' for value in result.dice)})")
    return "validation: " + "; ".join(parts)
