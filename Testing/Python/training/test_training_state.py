"""Training states on disk: whole or not there, saved at a steady pace, and a full disk ends no training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from HSAMSegmentLib.errors import CheckpointError, OutputError
from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.training.data.sampling import ValidationSet
from HSAMSegmentLib.training.loop.budget import Budget
from HSAMSegmentLib.training.loop.checkpointer import Checkpointer, load_state, save_state, state_path
from HSAMSegmentLib.training.loop.optimizer import WeightAverage
from HSAMSegmentLib.training.loop.trainer import Objective, Trainer
from HSAMSegmentLib.training.loop.validator import PATIENCE, Validator
from HSAMSegmentLib.training.request import ValidationMetrics


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_state_comes_back_as_it_was(tmp_path):
    path = state_path(tmp_path / "model.safetensors")
    state = {"weights": {"a": torch.arange(3.0)}, "steps": 7, "best": None, "names": ["x"]}
    save_state(path, state)
    found = load_state(path)
    assert torch.equal(found["weights"]["a"], state["weights"]["a"])
    assert (found["steps"], found["best"], found["names"]) == (7, None, ["x"])
    assert [item.name for item in tmp_path.iterdir()] == ["model.safetensors.training"]


def test_an_older_state_survives_a_failed_write(tmp_path):
    path = tmp_path / "state"
    save_state(path, {"steps": 1})
    with pytest.raises((OutputError, TypeError, AttributeError)):
        save_state(path, {"steps": 2, "not storable": lambda: None})
    assert load_state(path)["steps"] == 1


def test_a_damaged_state_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "state"
    save_state(path, {"steps": 1, "weights": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_state(path)


def test_nothing_in_a_state_file_is_executed(tmp_path):
    path = tmp_path / "state"
    torch.save({"steps": Clock()}, path)
    with pytest.raises(CheckpointError):
        load_state(path)


def test_saving_happens_at_the_pace_that_was_asked_for(tmp_path):
    clock, saved = Clock(), []

    def state() -> dict[str, float]:
        saved.append(clock.now)
        return {"seconds": clock.now}

    saver = Checkpointer(tmp_path / "state", state, every_seconds=20.0, clock=clock)
    for second in range(0, 61, 5):
        clock.now = float(second)
        saver.tick()
    assert saved == [20.0, 40.0, 60.0]
    assert saver.load() == {"seconds": 60.0}


def test_a_state_that_cannot_be_written_is_a_complaint_and_no_end(tmp_path):
    saver = Checkpointer(tmp_path / "gone" / "state", lambda: {"steps": 1}, every_seconds=0.0)
    assert not saver.save()
    assert "state" in saver.error


def small_network():
    torch.manual_seed(0)
    return build_network(Architecture(EncoderSpec("compact", 64), "linear", 1))


def test_the_average_follows_closely_at_first_and_shares_what_does_not_learn():
    network = small_network()
    network.encoder.requires_grad_(False)
    average = WeightAverage(network, decay=0.99)
    assert all(a is b for a, b in zip(average.network.encoder.parameters(), network.encoder.parameters()))
    before = network.head.final[2].bias.detach().clone()
    with torch.no_grad():
        network.head.final[2].bias += 1.0
    moved = []
    for _ in range(2000):
        average.update(network)
        moved.append(float((average.network.head.final[2].bias - before).mean()))
    assert moved[0] > 0.5
    assert all(later >= earlier for earlier, later in zip(moved, moved[1:]))
    assert moved[-1] == pytest.approx(1.0, abs=1e-3)


def validated(found: list[float], fraction: float) -> Validator:
    """Validator of a training that is so far, with these Dice one after the other."""
    network = small_network()
    trainer = Trainer(network, rate=1e-3, encoder_share=1.0, seed=0, device=torch.device("cpu"))
    budget = Budget(epochs=100)
    budget.set_steps_per_epoch(1)
    budget.resume(0.0, int(100 * fraction))
    for step, dice in enumerate(found, start=1):
        trainer.steps = step
        kept = trainer.keep_if_best(dice)
        trainer.history.append(ValidationMetrics(step=step, epoch=step, loss=1.0, dice={"liver": dice}, kept=kept))
    held = (ValidationSet(None, (0,), "given case"),)
    setup = SimpleNamespace(validation_sets=held, steps_per_epoch=1, labels=())
    return Validator(setup, trainer, budget, lambda event: None, CancelToken())


def test_learning_stops_when_the_dice_has_not_risen_for_a_while_but_never_in_the_first_half():
    rising, stuck = [0.1 * number for number in range(1, 10)], [0.8, *[0.7] * PATIENCE]
    assert not validated(rising, 0.9).has_converged
    assert validated(stuck, 0.9).has_converged
    assert not validated(stuck, 0.4).has_converged
    assert not validated(stuck[:-1], 0.9).has_converged


def test_the_state_with_the_best_dice_is_kept_not_the_last_one():
    trainer = validated([0.3, 0.9, 0.5], 0.9)._trainer
    assert (trainer.best_step, trainer.best_dice) == (2, 0.9)


def squares(stages, labels):
    return stages[0].square().mean()


class SameImage:
    """The same image in every batch."""

    def __init__(self, network) -> None:
        self.network = network

    def forward(self, generator: torch.Generator):
        return self.network(torch.full((1, 3, 64, 64), 0.5)), torch.zeros(1, 64, 64, dtype=torch.long)


def test_at_a_constant_rate_the_first_steps_are_small_and_all_others_alike_up_to_the_end():
    trainer = Trainer(
        small_network(), rate=1e-3, encoder_share=1.0, seed=0, device=torch.device("cpu"), schedule="constant"
    )
    rates = []
    for step in range(30):
        trainer.step([Objective(SameImage(trainer.network), squares)], step / 29)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(5e-5)
    assert rates[20:] == pytest.approx([1e-3] * 10)


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ([0.2, 0.90, 0.89], 2),
        ([0.2, 0.90, 0.89, 0.885, 0.95, 0.8], 4),
        ([0.2, 0.90, 0.87], 1),
        ([0.89, 0.90, 0.885], 1),
    ],
    ids=["a little less", "only against the best", "much less", "less than the start"],
)
def test_with_a_margin_a_later_state_is_kept_that_is_hardly_worse_but_never_one_below_the_start(found, kept):
    trainer = Trainer(small_network(), rate=1e-3, encoder_share=1.0, seed=0, device=torch.device("cpu"))
    for step, dice in enumerate(found):
        trainer.steps = step
        is_kept = trainer.keep_if_best(dice, 0.02)
        trainer.history.append(ValidationMetrics(step=step, epoch=step, loss=1.0, dice={"liver": dice}, kept=is_kept))
    assert trainer.best_step == kept
    assert trainer.best_dice == found[kept]


def test_with_autosams_schedule_the_rate_falls_when_the_loss_of_epochs_does_not_and_a_resumed_one_knows():
    facts = {"rate": 1e-3, "encoder_share": 1.0, "seed": 0, "device": torch.device("cpu")}
    trainer = Trainer(small_network(), **facts, schedule="autosam", steps_per_epoch=2)

    def flat(stages, labels):
        return 1.0 + 0.0 * stages[0].sum()

    rates = []
    for _ in range(2 * 23):
        trainer.step([Objective(SameImage(trainer.network), flat)], 0.5)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3] * 44 + [1e-4] * 2)
    resumed = Trainer(small_network(), **facts, schedule="autosam", steps_per_epoch=2)
    resumed.resume(trainer.state())
    resumed.step([Objective(SameImage(resumed.network), flat)], 0.5)
    assert resumed.optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)
