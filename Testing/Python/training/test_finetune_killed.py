"""A fine-tuning that is killed (SIGKILL, no farewell) at any moment goes on with `resume` to the same result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from stored_models import encoder_file

from HSAMSegmentLib.training.features.feature_cache import PREFIX
from HSAMSegmentLib.training.loop.checkpointer import load_state, state_path
from HSAMSegmentLib.weights.bundle import read_tensors
from HSAMSegmentLib.weights.store import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL on Windows"),
]

LEFT = {"finetuned.safetensors", "options.json"}
PROGRAM = Path(__file__).parents[1].joinpath("finetune_in_a_process.py")


@pytest.fixture(scope="module")
def home(parity_folder, tmp_path_factory) -> Path:
    """A store with a small SAM encoder of random weights, in the official layout."""
    home = tmp_path_factory.mktemp("home")
    Store(home).import_file(encoder_file(parity_folder, home), model_id="small-sam")
    return home


class Run:
    """A fine-tuning in a process of its own."""

    def __init__(self, folder: Path, home: Path, data_folder: Path, **options) -> None:
        self.output = folder / "finetuned.safetensors"
        self.beginning, self.left = options.get("stay_at", ("", 0))
        settings = {
            "output": str(self.output),
            "cache_folder": str(folder),
            "encoder": "small-sam",
            "head": "linear",
            "epochs": 4,
            "save_seconds": 0.0,
            **options,
        }
        (folder / "options.json").write_text(json.dumps(settings))
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(data_folder), str(folder / "options.json")],
            env={**os.environ, "HSAMSEGMENT_HOME": str(home)},
            stdout=subprocess.PIPE,
            text=True,
        )

    def kill(self) -> list[str]:
        """Kill it where it stays; returns all lines."""
        lines = []
        for line in self.process.stdout:
            lines.append(line.strip())
            self.left -= line.startswith(self.beginning)
            if self.left == 0:
                self.process.kill()
                break
        assert self.process.wait() == -9, lines[-3:]
        return lines

    def result(self) -> dict:
        """What it ended with."""
        lines = self.process.communicate()[0].splitlines()
        assert self.process.returncode == 0, lines[-3:]
        return json.loads(lines[-1].removeprefix("RESULT "))


@pytest.fixture(scope="module")
def whole(home, data_folder, tmp_path_factory) -> dict[str, torch.Tensor]:
    """The weights of a run that nobody disturbed."""
    run = Run(tmp_path_factory.mktemp("whole"), home, data_folder)
    assert run.result()["stopped"] == "budget"
    return read_tensors(run.output)


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


MOMENTS = {
    "while slices are encoded": (("Encoding the slices", 3), 0),
    "after the first step": (("Learning", 1), 1),
    "in the middle of learning": (("Learning", 7), 7),
    "right after a look": (("LOOK", 3), 9),
    "while a state is written": (("FLUSH", 12), None),
    "while the model is written": (("Writing the model", 1), 12),
}


def killed_at(moment: tuple[str, int], folder: Path, home: Path, data_folder: Path, **options) -> list[str]:
    return Run(folder, home, data_folder, stay_at=moment, **options).kill()


def resumed_step(notes: list[str]) -> int:
    note = next(note for note in notes if note.startswith("Resumed at step"))
    return int(note.rstrip(".").split()[-1])


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_was_killed_ends_as_if_nothing_had_happened(moment, whole, home, data_folder, tmp_path):
    place, step = MOMENTS[moment]
    lines = killed_at(place, tmp_path, home, data_folder)
    assert not (tmp_path / "finetuned.safetensors").exists()
    resumed = Run(tmp_path, home, data_folder, resume=True, overwrite=True)
    result = resumed.result()
    learned = sum(line.startswith("Learning") for line in lines)
    assert resumed_step(result["notes"]) == (learned if step is None else step)
    assert same(read_tensors(resumed.output), whole)
    assert {item.name for item in tmp_path.iterdir() if not item.name.startswith(".")} == LEFT


def test_features_that_were_kept_before_the_kill_are_not_computed_again(home, data_folder, tmp_path):
    killed_at(("Encoding the slices", 3), tmp_path, home, data_folder)
    assert len(list(tmp_path.glob(f"{PREFIX}*"))) == 1
    resumed = Run(tmp_path, home, data_folder, resume=True, overwrite=True, stay_at=("Encoding the slices", 1))
    first = next(line for line in resumed.kill() if line.startswith("Encoding the slices"))
    assert int(first.split()[3]) > 14


def test_two_kills_in_a_row_change_nothing_either(whole, home, data_folder, tmp_path):
    killed_at(("Learning", 3), tmp_path, home, data_folder)
    killed_at(("Learning", 4), tmp_path, home, data_folder, resume=True, overwrite=True)
    last = Run(tmp_path, home, data_folder, resume=True, overwrite=True)
    assert resumed_step(last.result()["notes"]) == 7
    assert same(read_tensors(last.output), whole)


def test_with_minutes_the_time_and_the_best_state_before_the_kill_count(home, data_folder, tmp_path):
    options = {"epochs": None, "minutes": 0.5}
    killed_at(("LOOK", 2), tmp_path, home, data_folder, **options)
    state = load_state(state_path(tmp_path / "finetuned.safetensors"))
    result = Run(tmp_path, home, data_folder, resume=True, overwrite=True, **options).result()
    assert result["steps"] >= state["learner"]["steps"] > 0
    assert result["seconds"] > state["seconds"]
    assert result["best"] >= state["learner"]["best_dice"]
    assert result["stopped"] in ("budget", "no more progress")


def test_what_was_killed_in_its_second_network_ends_as_if_nothing_had_happened(home, data_folder, tmp_path):
    options = {"is_thin": True, "encoder": "", "head": "", "epochs": 1}
    (tmp_path / "whole").mkdir()
    undisturbed = Run(tmp_path / "whole", home, data_folder, **options)
    expected = undisturbed.result()
    killed_at(("Learning sagittal slices", 2), tmp_path, home, data_folder, **options)
    resumed = Run(tmp_path, home, data_folder, resume=True, overwrite=True, **options)
    result = resumed.result()
    assert 0 < resumed_step(result["notes"]) < expected["steps"] == result["steps"]
    assert same(read_tensors(resumed.output), read_tensors(undisturbed.output))
    (compared,) = (note for note in expected["notes"] if "where held-out slices cross these" in note)
    assert compared in result["notes"]
