"""Training states on disk: whole or not there, saved at a steady pace, and a full disk ends no training."""

from __future__ import annotations

import pytest
import torch

from HSAMSegmentLib.errors import CheckpointError, OutputError
from HSAMSegmentLib.training.checkpointing import PeriodicSaver, load_state, save_state, state_path


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
    saver = PeriodicSaver(lambda: saved.append(clock.now), every_seconds=20.0, clock=clock)
    for second in range(0, 61, 5):
        clock.now = float(second)
        saver.tick()
    assert saved == [20.0, 40.0, 60.0]


def test_a_state_that_cannot_be_written_is_a_complaint_and_no_end(tmp_path):
    saver = PeriodicSaver(lambda: save_state(tmp_path / "gone" / "state", {"steps": 1}), every_seconds=0.0)
    assert not saver.now()
    assert "state" in saver.complaint
