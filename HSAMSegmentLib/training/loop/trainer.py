"""The state of a training and its steps; it can be saved and resumed after any step with bit-identical results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from HSAMSegmentLib.errors import TrainingError
from HSAMSegmentLib.models.interface import StageLogits
from HSAMSegmentLib.training import ranks
from HSAMSegmentLib.training.data.batches import Batches
from HSAMSegmentLib.training.loop.budget import Budget
from HSAMSegmentLib.training.loop.optimizer import (
    GRADIENT_LIMIT,
    WeightAverage,
    cosine_share,
    hsam_rate_share,
    make_optimizer,
    mixed_precision,
    plateau_share,
    set_rate,
)
from HSAMSegmentLib.training.request import ValidationMetrics

WARMUP_STEPS = 20
AVERAGE_DECAY = 0.99
STEADY_AVERAGE_DECAY = 0.998
"""Longer, since at a constant rate only averaging lets the weights settle."""
_SMOOTHING = 0.9
_LARGEST_FLOAT16 = 65504.0

STEP_SHARE = 0.1
_QUICK_SECONDS = 1.0
_PROBES = 2


class NonFiniteLossError(TrainingError):
    """The loss or a gradient is infinite or NaN."""


LossOf = Callable[[Sequence[Tensor], Tensor], Tensor]
"""From the logits of all stages and the labels [B, H, W] to a scalar."""


class BatchSource(Protocol):
    """Draws batches and runs the network."""

    def forward(self, generator: torch.Generator) -> tuple[StageLogits, Tensor]:
        """Logits of all stages and labels [B, H, W] of a new batch."""


@dataclass(frozen=True)
class Objective:
    """One term of a training step: a batch source and its loss.

    Attributes:
        batches: draws a batch and runs the network.
        loss_of: the loss function.
    """

    batches: BatchSource
    loss_of: LossOf


class Trainer:
    """Holds everything that changes in training: network, average, optimizer, random state, steps, best weights."""

    def __init__(
        self,
        network: nn.Module,
        *,
        rate: float,
        seed: int,
        device: torch.device,
        encoder_share: float = 1.0,
        schedule: str = "cosine",
        steps_per_epoch: int = 1,
        average_decay: float | None = None,
        warmup_steps: int = WARMUP_STEPS,
    ) -> None:
        """
        Args:
            network: on its device; `requires_grad` marks what is trained.
            rate: highest learning rate.
            seed: random seed.
            device: device of the network.
            encoder_share: factor on the learning rate of the encoder.
            schedule: learning rate schedule, one of `request.SCHEDULES`.
            steps_per_epoch: for the schedule "autosam", which compares the losses at the ends of epochs.
            average_decay: decay of the weight average; None for the default of the schedule.
            warmup_steps: steps until the schedules "constant" and "cosine" reach the highest rate.
        """
        ranks.share_weights(network)
        self.schedule, self.steps_per_epoch, self.warmup_steps = schedule, steps_per_epoch, warmup_steps
        self.epoch_losses: list[float] = []
        self.network: Any = network
        self.device = device
        self.rate = rate
        self.average = WeightAverage(
            network, decay=_average_decay(schedule) if average_decay is None else average_decay
        )
        self.optimizer = make_optimizer(network, rate, encoder_share=encoder_share)
        self.generator = torch.Generator().manual_seed(seed)
        self.steps = 0
        self.seconds = 0.0
        self.loss = float("nan")
        self.last_losses: tuple[float, ...] = ()
        self.best: dict[str, Tensor] | None = None
        self.best_dice: float | None = None
        self.best_step = 0
        self.is_finished = False
        self.history: list[ValidationMetrics] = []
        self.validated_slices: list[list[int]] | None = None
        """Slices of each validation set used for the history; None before the first validation."""
        self._trained_names = _trained_names(network)
        self.guard: Callable[[], AbstractContextManager[Any]] = nullcontext
        """Context that gradients are computed in."""

    def step(self, objectives: Sequence[Objective], progress: float) -> None:
        """Take one optimizer step; if interrupted, weights and random state are left unchanged.

        Args:
            objectives: loss terms; their gradients are summed.
            progress: completed part of the training, 0 to 1, for the learning rate.

        Raises:
            NonFiniteLossError: if a loss or a gradient is not finite; the weights are left as before the step.
        """
        began = time.monotonic()
        set_rate(self.optimizer, self.rate * self._rate_share(progress))
        draws, noise = self.generator.get_state(), torch.get_rng_state()
        try:
            with self.guard():
                losses = self._compute_gradients(objectives)
        except BaseException:
            self.generator.set_state(draws)
            torch.set_rng_state(noise)
            raise
        self.optimizer.step()
        self.average.update(self.network)
        self.steps += 1
        value = sum(losses) / len(losses)
        self.last_losses = losses
        self.loss = value if self.steps == 1 else _SMOOTHING * self.loss + (1 - _SMOOTHING) * value
        if self.steps % self.steps_per_epoch == 0:
            self.epoch_losses.append(value)
        self.seconds += time.monotonic() - began

    def _rate_share(self, progress: float) -> float:
        """Fraction of the highest learning rate at the current step."""
        if self.schedule == "autosam":
            return plateau_share(self.epoch_losses)
        if self.schedule == "hsam":
            return hsam_rate_share(self.steps, progress)
        share = warmed_cosine_share if self.schedule == "cosine" else warmed_constant_share
        return share(self.steps, progress, self.warmup_steps)

    def _compute_gradients(self, objectives: Sequence[Objective]) -> tuple[float, ...]:
        """The loss of each objective; the summed gradients are left in the network."""
        self.network.train()
        self.optimizer.zero_grad()
        losses = []
        for objective in objectives:
            with mixed_precision(self.device):
                logits, labels = objective.batches.forward(self.generator)
            loss = objective.loss_of(logits.stages, labels)
            torch.autograd.backward(loss)
            losses.append(loss.detach())
        ranks.sum_gradients(self.network)
        ranks.average_buffers(self.network)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_LIMIT)
        # Read together, because a GPU waits at each read.
        *values, length = torch.stack([*losses, norm]).tolist()
        if not all(math.isfinite(value) for value in (*values, length)):
            raise NonFiniteLossError(f"The loss is not finite at step {self.steps + 1}. Try a lower rate.")
        return tuple(values)

    @property
    def is_finite(self) -> bool:
        """Whether all averaged weights are finite in half precision, in which they are saved."""
        state = self.average.network.state_dict()
        return all(bool((state[name].abs() <= _LARGEST_FLOAT16).all()) for name in self._trained_names)

    def keep_if_best(self, dice: float | None, margin: float = 0.0) -> bool:
        """Keep a copy of the averaged weights if they are the best so far; without Dice, keep the newest.

        Args:
            dice: Dice of these weights; None without validation.
            margin: how far a later state may fall below the best Dice and still be kept, though never below the start.
        """
        if dice is not None and not self._is_better(dice, margin):
            return False
        if not self.is_finite:
            return False
        state = self.average.network.state_dict()
        self.best = {name: state[name].detach().cpu().clone() for name in self._trained_names}
        self.best_dice, self.best_step = dice, self.steps
        return True

    def _is_better(self, dice: float, margin: float) -> bool:
        if self.best_dice is None or dice > self.best_dice:
            return True
        if margin == 0.0:
            return False
        earlier = [(item.step, item.mean_dice) for item in self.history if item.mean_dice is not None]
        return all(dice >= known - (margin if step else 0.0) for step, known in earlier)

    def load_best(self) -> Any:
        """The averaged network with the kept weights."""
        if self.best is not None:
            self.average.network.load_state_dict(self.best, strict=False)
        return self.average.network

    def finish(self) -> None:
        """Free memory that only further steps need."""
        self.optimizer.zero_grad()
        self.optimizer.state.clear()
        self.is_finished = True

    def state(self) -> dict[str, Any]:
        """Everything that `resume` needs, without frozen weights and what `finish` freed."""
        current, average = self.network.state_dict(), self.average.network.state_dict()
        return {
            "network": {name: current[name] for name in self._trained_names},
            "average": {name: average[name] for name in self._trained_names},
            "average_updates": self.average.updates,
            "optimizer": None if self.is_finished else self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "torch_generator": torch.get_rng_state(),
            "device_generator": _device_draws(self.device),
            "steps": self.steps,
            "loss": self.loss,
            "epoch_losses": list(self.epoch_losses),
            "best": self.best,
            "best_dice": self.best_dice,
            "best_step": self.best_step,
            "history": [item.to_state() for item in self.history],
            "judged_on": self.validated_slices,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        self.network.load_state_dict(state["network"], strict=False)
        self.average.network.load_state_dict(state["average"], strict=False)
        self.average.updates = state["average_updates"]
        if state["optimizer"] is None:
            self.finish()
        else:
            self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_generator"])
        if state.get("device_generator") is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["device_generator"], self.device)
        ranks.separate_noise(state["steps"])
        self.steps, self.loss = state["steps"], state["loss"]
        self.epoch_losses = list(state.get("epoch_losses", ()))
        self.best, self.best_dice, self.best_step = state["best"], state["best_dice"], state["best_step"]
        self.history = [ValidationMetrics.from_state(item) for item in state["history"]]
        self.validated_slices = state.get("judged_on")


def warmed_cosine_share(step: int, progress: float, warmup_steps: int = WARMUP_STEPS) -> float:
    """Fraction of the highest learning rate at a step, counted from 0, and a completed part of the training."""
    return warmed_constant_share(step, progress, warmup_steps) * cosine_share(progress)


def warmed_constant_share(step: int, progress: float, warmup_steps: int = WARMUP_STEPS) -> float:
    """Fraction of the highest learning rate at a step, counted from 0; `progress` is ignored."""
    del progress
    return min(1.0, (step + 1) / warmup_steps)


def _average_decay(schedule: str) -> float:
    return STEADY_AVERAGE_DECAY if schedule == "constant" else AVERAGE_DECAY


def _trained_names(network: nn.Module) -> list[str]:
    """Names of the tensors that change in training: trained parameters and buffers."""
    learning = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    buffers = [name for name, _ in network.named_buffers() if name in network.state_dict()]
    return learning + buffers


def _device_draws(device: torch.device) -> Tensor | None:
    """State of the generator for dropout and noise on a CUDA device."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None


class BatchSizeProbe:
    """Chooses the batch size; with epochs it is the requested one.

    With minutes, the first steps run with a batch size of one to measure them: one step, or two if the first is quick,
    because the first pass is slower than the others.
    """

    def __init__(self, budget: Budget, batches: Batches) -> None:
        self._budget, self._batches = budget, batches
        self._requested = batches.training_set.batch_size
        self._probes: list[float] = []
        self._is_settled = budget.minutes is None
        if not self._is_settled:
            self._set_batch_size(1)

    def after_step(self) -> tuple[str, ...]:
        """Record the duration of the last step, and choose the batch size once enough is known.

        Returns:
            A sentence if the batch size is reduced.
        """
        minutes = self._budget.minutes
        if self._is_settled or minutes is None:
            return ()
        self._probes.append(self._budget.step_seconds)
        if len(self._probes) < _PROBES and self._probes[0] < _QUICK_SECONDS:
            return ()
        seconds = max(min(self._probes), 1e-6)
        views = min(self._requested, max(1, int(STEP_SHARE * 60.0 * minutes / seconds)))
        self._set_batch_size(views)
        self._budget.step_seconds = seconds * views
        self._is_settled = True
        if views == self._requested:
            return ()
        return (f"This network is slow on this computer: the batch size is reduced to {views}.",)

    def _set_batch_size(self, views: int) -> None:
        self._batches.training_set = replace(self._batches.training_set, batch_size=views)
