"""Several processes that train together under torchrun: the weights of one process with the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from untrained_model import write_untrained_model

from HSAMSegmentLib.training.loop.checkpointer import load_state

PROGRAM = Path(__file__).parents[1] / "train_in_ranks.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed training"),
]


def run(folder: Path, ranks: int = 1, **options) -> list[dict]:
    """Train in a folder; returns what each rank held at the end."""
    folder.mkdir(exist_ok=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *launcher, str(PROGRAM), str(folder), json.dumps(options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(ranks)]


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    """A built-in model after four steps of one process."""
    (found,) = run(tmp_path_factory.mktemp("alone"), mode="builtin", batch_size=4, steps=4)
    assert largest_difference(found["network"], found["weights"]) > 1e-4  # it learned something
    return found


def test_two_ranks_train_a_builtin_model_as_one_process_with_the_doubled_batch(alone, tmp_path):
    first, second = run(tmp_path / "two", ranks=2, mode="builtin", batch_size=2, steps=4)
    assert largest_difference(first["network"], alone["network"]) < 1e-5
    assert largest_difference(first["weights"], alone["weights"]) < 1e-5
    assert largest_difference(first["network"], second["network"]) == 0.0
    assert torch.equal(first["draws"], second["draws"])
    assert torch.equal(first["draws"], alone["draws"])
    assert first["dice"] == second["dice"]
    assert first["dice"] == pytest.approx(alone["dice"], abs=1e-3, nan_ok=True)


def test_a_training_goes_on_with_another_number_of_ranks(alone, tmp_path):
    run(tmp_path / "changing", ranks=2, mode="builtin", batch_size=2, steps=2)
    saved = load_state(tmp_path / "changing" / "builtin.training")
    assert saved["steps"] == 2
    (after,) = run(tmp_path / "changing", mode="builtin", batch_size=4, steps=4)
    assert after["steps"] == 4
    assert largest_difference(after["network"], alone["network"]) < 1e-5
    assert torch.equal(after["draws"], alone["draws"])


def test_two_ranks_fine_tune_as_one_process_with_the_doubled_batch(tmp_path):
    model = write_untrained_model(tmp_path / "start.safetensors")
    options = {"mode": "finetune", "start_from": str(model), "adaptation": "full", "head": "linear", "epochs": 1}
    (alone,) = run(tmp_path / "alone", batch_size=4, **options)
    first, second = run(tmp_path / "two", ranks=2, batch_size=2, **options)
    assert first["stopped"] == "budget"
    assert (first["steps"], second["steps"]) == (alone["steps"], alone["steps"])
    assert first["dice"] == second["dice"]
    assert (first["events"] > 0, second["events"]) == (True, 0)
    assert largest_difference(first["weights"], alone["weights"]) < 1e-3  # stored in half precision


def test_two_ranks_fine_tune_on_cached_features_and_slices_of_one_disk(tmp_path):
    model = write_untrained_model(tmp_path / "start.safetensors")
    options = {"mode": "finetune", "start_from": str(model), "adaptation": "frozen", "head": "linear", "epochs": 2}
    first, second = run(tmp_path / "two", ranks=2, batch_size=2, is_streamed=True, **options)
    assert first["stopped"] == "budget"
    assert first["steps"] == second["steps"] == 10
    assert list((tmp_path / "two" / "stream").iterdir()) == []
    assert first["dice"] == second["dice"]


def test_a_cancel_of_one_rank_stops_both_and_resume_goes_on_alone(tmp_path):
    model = write_untrained_model(tmp_path / "start.safetensors")
    options = {"mode": "finetune", "start_from": str(model), "adaptation": "full", "head": "linear", "epochs": 4}
    first, second = run(tmp_path / "run", ranks=2, batch_size=2, stop_at=3, **options)
    assert (first["stopped"], second["stopped"]) == ("cancelled", "cancelled")
    assert first["steps"] == second["steps"] == 3
    (after,) = run(tmp_path / "run", batch_size=2, resume=True, overwrite=True, **options)
    assert after["stopped"] == "budget"
    # Of 4 epochs of 20 slices, three steps of two ranks saw the slices of six steps of one: 34 are left.
    assert after["steps"] == 3 + 34


def test_minutes_are_refused_for_several_ranks_in_one_sentence(tmp_path):
    model = write_untrained_model(tmp_path / "start.safetensors")
    found = run(tmp_path / "run", ranks=2, mode="finetune", start_from=str(model), minutes=1.0)
    assert all("give the number of epochs" in item["error"] for item in found)
