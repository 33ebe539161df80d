"""A training that can stop at any step and go on to the same result: weights, average, optimizer, draws, best state."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from HSAMSegmentLib.errors import TrainingError
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.training.data.batches import Batches
from HSAMSegmentLib.training.loop.optimizer import (
    GRADIENT_LIMIT,
    cosine_share,
    make_optimizer,
    mixed_precision,
    set_rate,
)
from HSAMSegmentLib.training.loop.schedules import hsam_rate_share, plateau_share
from HSAMSegmentLib.training.loop.weight_average import WeightAverage
from HSAMSegmentLib.training.request import TeachMetrics

WARMUP_STEPS = 20
AVERAGE_DECAY = 0.99
STEADY_AVERAGE_DECAY = 0.998
"""At a constant rate the average alone makes the weights settle, so it goes further back."""
_SMOOTHING = 0.9
_LARGEST_FLOAT16 = 65504.0


class NotANumberError(TrainingError):
    """The loss or a gradient is not a finite number."""


class Learner:
    """Steps, and remembers the best weights."""

    def __init__(
        self,
        network: SegmentationNetwork,
        *,
        rate: float,
        encoder_share: float,
        seed: int,
        device: torch.device,
        schedule: str = "cosine",
        steps_per_epoch: int = 1,
    ) -> None:
        """
        Args:
            network: on its device, `requires_grad` set for what learns.
            rate: highest learning rate.
            encoder_share: factor on the rate of the encoder.
            seed: of all draws.
            device: where the network is.
            schedule: of the rate, one of `request.SCHEDULES`.
            steps_per_epoch: for the schedule "autosam", which looks at the loss at the end of each epoch.
        """
        self.schedule, self.steps_per_epoch = schedule, steps_per_epoch
        self.epoch_losses: list[float] = []
        self.network = network
        self.device = device
        self.rate = rate
        self.average = WeightAverage(network, decay=STEADY_AVERAGE_DECAY if schedule == "constant" else AVERAGE_DECAY)
        self.optimizer = make_optimizer(network, rate, encoder_share=encoder_share)
        self.generator = torch.Generator().manual_seed(seed)
        self.steps = 0
        self.loss = float("nan")
        self.best: dict[str, Tensor] | None = None
        self.best_dice: float | None = None
        self.best_step = 0
        self.is_finished = False
        self.history: list[TeachMetrics] = []
        self.judged_on: list[list[int]] | None = None
        """Slices of each validation set that the history was measured on, None before the first look."""
        self._kept_names = _learned_names(network)
        self.guard: Callable[[], AbstractContextManager] = nullcontext

    def step(self, batches: Batches, loss_of: Callable[..., Tensor], progress: float) -> None:
        """One step of the optimizer; if it is interrupted, nothing has changed, not even the draws.

        Args:
            batches: where the views come from.
            loss_of: (stages, labels) to a scalar.
            progress: done part of the training, 0 to 1, for the learning rate.

        Raises:
            NotANumberError: if the loss or a gradient is not finite; the weights are then as before the step.
        """
        set_rate(self.optimizer, self.rate * self._rate_share(progress))
        draws, noise = self.generator.get_state(), torch.get_rng_state()
        try:
            with self.guard():
                value = self._differentiate(batches, loss_of)
        except BaseException:
            self.generator.set_state(draws)
            torch.set_rng_state(noise)
            raise
        self.optimizer.step()
        self.average.update(self.network)
        self.steps += 1
        self.loss = value if self.steps == 1 else _SMOOTHING * self.loss + (1 - _SMOOTHING) * value
        if self.steps % self.steps_per_epoch == 0:
            self.epoch_losses.append(value)

    def _rate_share(self, progress: float) -> float:
        """Share of the highest rate at the present step."""
        if self.schedule == "autosam":
            return plateau_share(self.epoch_losses)
        return _RATE_SHARES[self.schedule](self.steps, progress)

    def _differentiate(self, batches: Batches, loss_of: Callable[..., Tensor]) -> float:
        """Loss of a batch; its gradients are left in the network."""
        self.network.train()
        self.optimizer.zero_grad()
        with mixed_precision(self.device):
            logits, labels = batches.forward(self.generator)
        loss = loss_of(logits.stages, labels)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_LIMIT)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise NotANumberError(f"The loss is not a number any more at step {self.steps + 1}. Try a lower rate.")
        return float(loss.detach())

    @property
    def is_sound(self) -> bool:
        """Whether all averaged weights are numbers that a file in half precision can hold."""
        state = self.average.network.state_dict()
        return all(bool((state[name].abs() <= _LARGEST_FLOAT16).all()) for name in self._kept_names)

    def keep_if_best(self, dice: float | None, margin: float = 0.0) -> bool:
        """Remember the averaged weights if they are the best so far; without a Dice the newest are.

        Args:
            dice: of these weights, None where nothing is validated.
            margin: how much less than the best Dice so far is as good, since it comes later; never less than the start.
        """
        if dice is not None and self.best_dice is not None and not self._is_better(dice, margin):
            return False
        if not self.is_sound:
            return False
        state = self.average.network.state_dict()
        self.best = {name: state[name].detach().cpu().clone() for name in self._kept_names}
        self.best_dice, self.best_step = dice, self.steps
        return True

    def _is_better(self, dice: float, margin: float) -> bool:
        if margin == 0.0 or dice > self.best_dice:
            return dice > self.best_dice
        earlier = [(item.step, item.mean_dice) for item in self.history if item.mean_dice is not None]
        return all(dice >= known - (margin if step else 0.0) for step, known in earlier)

    def load_best(self) -> SegmentationNetwork:
        """The averaged network with its best weights."""
        if self.best is not None:
            self.average.network.load_state_dict(self.best, strict=False)
        return self.average.network

    def finish(self) -> None:
        """Give back the memory that only further steps would need."""
        self.optimizer.zero_grad()
        self.optimizer.state.clear()
        self.is_finished = True

    def state(self) -> dict[str, Any]:
        """Everything that `resume` needs; what does not learn is not in it, nor what `finish` gave back."""
        current, average = self.network.state_dict(), self.average.network.state_dict()
        return {
            "network": {name: current[name] for name in self._kept_names},
            "average": {name: average[name] for name in self._kept_names},
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
            "history": [asdict(item) for item in self.history],
            "judged_on": self.judged_on,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
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
        self.steps, self.loss = state["steps"], state["loss"]
        self.epoch_losses = list(state.get("epoch_losses", ()))
        self.best, self.best_dice, self.best_step = state["best"], state["best_dice"], state["best_step"]
        self.history = [TeachMetrics(**item) for item in state["history"]]
        self.judged_on = state.get("judged_on")


def warmed_cosine_share(step: int, progress: float) -> float:
    """Share of the highest learning rate at a step, counted from 0, and a part of the training."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * cosine_share(progress)


def warmed_constant_share(step: int, progress: float) -> float:
    """Share of the highest learning rate at a step, counted from 0; the part of the training does not matter."""
    del progress
    return min(1.0, (step + 1) / WARMUP_STEPS)


_RATE_SHARES = {"constant": warmed_constant_share, "cosine": warmed_cosine_share, "hsam": hsam_rate_share}


def _learned_names(network: nn.Module) -> list[str]:
    """Names of the tensors that change in training: what learns, and the head's buffers."""
    learning = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    buffers = [name for name, _ in network.named_buffers() if name in network.state_dict()]
    return learning + buffers


def _device_draws(device: torch.device) -> Tensor | None:
    """State of the generator that dropout and noise on a CUDA device are drawn from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None
