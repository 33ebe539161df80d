"""Fine-tuning as a job, run: pause, stop, resume, and what is left after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from finetune_fixtures import small_request

from HSAMSegmentLib.errors import OutputError
from HSAMSegmentLib.runtime.owned_folders import Workspace
from HSAMSegmentLib.runtime.serialization import from_plain, to_plain
from HSAMSegmentLib.weights.bundle import read_tensors
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.worker.process_runner import ProcessRunner
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.events import Failed, Result, ValidationPicture, is_terminal
from HSAMSegmentLib.workflows.finetune.finetune_request import FinetuneOutcome
from HSAMSegmentLib.workflows.finetune.training_run import PAUSE, STOP, TrainingRun, unfinished_runs
from HSAMSegmentLib.workflows.finetune.validation_record import ValidationRecord
from HSAMSegmentLib.workflows.run import run

posix = pytest.mark.skipif(os.name == "nt", reason="uses POSIX signals")


class Log:
    """Collects events, and does something at the n-th look."""

    def __init__(self, record: int = -1, then=None):
        self.events, self._record, self._then = [], record, then

    def __call__(self, event):
        self.events.append(event)
        if (
            self._then is not None
            and len(self.of(ValidationRecord)) == self._record
            and isinstance(event, ValidationRecord)
        ):
            self._then()

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


def outcome_of(result) -> FinetuneOutcome:
    return from_plain(FinetuneOutcome, json.loads(json.dumps(to_plain(result))))


@pytest.mark.slow
def test_a_finetuned_model_is_in_the_store_with_its_card_and_the_scratch_data_is_gone(tmp_path, data_folder):
    log = Log()
    request = small_request(tmp_path, data_folder)
    outcome = outcome_of(run(request, Context(log)))
    entry = Store(tmp_path / "store").find(outcome.model_id)
    assert entry.organs == ("liver", "right kidney")
    assert entry.title == outcome.title == "Small model"
    assert "Dice on held-out slices of the same scan" in outcome.card
    assert outcome.validated_on == "held-out slices of the same scan"
    assert outcome.dice
    assert outcome.start_dice, "on a slow computer of the organs that a part of the held-out slices has"
    assert set(outcome.dice) | set(outcome.start_dice) <= {"liver", "right kidney"}
    assert not Path(request.folder).exists()
    records = log.of(ValidationRecord)
    assert records[0].step == 0
    assert records[-1].step == outcome.steps
    assert records[-1].loss is not None
    assert records[-1].seconds > 0
    assert records[-1].dice
    assert log.of(ValidationPicture)


@pytest.mark.slow
def test_an_id_that_is_taken_by_then_gets_a_number(tmp_path, data_folder):
    first = outcome_of(run(small_request(tmp_path, data_folder)))
    second = outcome_of(run(small_request(tmp_path, data_folder)))
    assert (first.model_id, second.model_id) == ("small", "small-2")


@pytest.mark.slow
def test_a_pause_keeps_everything_and_resuming_ends_in_a_model(tmp_path, data_folder):
    request = small_request(tmp_path, data_folder, minutes=2.0)
    training_run = TrainingRun(request.folder)
    paused = outcome_of(run(request, Context(Log(2, lambda: training_run.ask_for(PAUSE)))))
    assert paused.stopped == "paused"
    assert paused.model_id == ""
    (offered,) = unfinished_runs(tmp_path)
    assert offered.has_state
    rest = replace(offered.request, resume=True, minutes=paused.seconds / 60.0 + 0.75)
    outcome = outcome_of(run(rest))
    assert outcome.steps > paused.steps
    assert outcome.seconds > paused.seconds
    assert not any("Resumed" in note or "tensors" in note for note in outcome.notes), "nobody needs to read that"
    assert Store(tmp_path / "store").find(outcome.model_id).is_present


@pytest.mark.slow
@pytest.mark.parametrize(("wish", "ending"), [(PAUSE, "paused"), (STOP, "stopped")])
def test_a_wish_before_the_saved_state_is_read_is_heeded_and_loses_nothing(tmp_path, data_folder, wish, ending):
    request = small_request(tmp_path, data_folder, minutes=2.0)
    training_run = TrainingRun(request.folder)
    paused = outcome_of(run(request, Context(Log(2, lambda: training_run.ask_for(PAUSE)))))
    training_run.ask_for(wish)
    outcome = outcome_of(run(replace(request, resume=True)))
    assert outcome.stopped == ending
    assert outcome.steps >= paused.steps
    assert bool(outcome.model_id) == (wish == STOP)


@pytest.mark.slow
def test_a_stop_keeps_the_best_so_far_as_a_model(tmp_path, data_folder):
    request = small_request(tmp_path, data_folder, minutes=2.0)
    training_run = TrainingRun(request.folder)
    outcome = outcome_of(run(request, Context(Log(2, lambda: training_run.ask_for(STOP)))))
    assert outcome.stopped == "stopped"
    assert outcome.dice
    assert Store(tmp_path / "store").find(outcome.model_id).is_present
    assert unfinished_runs(tmp_path) == []


@pytest.mark.slow
def test_a_store_that_cannot_be_written_costs_nothing_that_was_learned(tmp_path, data_folder):
    (tmp_path / "store").write_text("a file where the folder should be")
    request = small_request(tmp_path, data_folder)
    with pytest.raises(OutputError, match="is kept in"):
        run(request)
    (tmp_path / "store").unlink()
    (offered,) = unfinished_runs(tmp_path)
    outcome = outcome_of(run(replace(offered.request, resume=True, finish=True)))
    assert Store(tmp_path / "store").find(outcome.model_id).is_present


def wait_for(runner, condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    seen = []
    while time.monotonic() < deadline:
        seen += runner.poll()
        if condition(seen):
            return seen
        time.sleep(0.02)
    raise AssertionError(f"waited in vain; last events: {seen[-3:]}")


@posix
@pytest.mark.slow
def test_a_killed_worker_loses_no_model_and_the_course_can_go_on_or_be_finished(tmp_path, data_folder):
    request = small_request(tmp_path, data_folder, minutes=60.0)
    state = TrainingRun(request.folder).state_file(request.model_id)
    workspace = Workspace(tmp_path)
    runner = ProcessRunner(workspace)
    runner.start(request)
    wait_for(runner, lambda seen: state.is_file() or (seen and is_terminal(seen[-1])))
    os.kill(runner.worker_pid, signal.SIGKILL)
    events = wait_for(runner, lambda seen: seen and is_terminal(seen[-1]))
    assert isinstance(events[-1], Failed)
    (offered,) = unfinished_runs(tmp_path)
    assert offered.has_state
    assert offered.history
    runner.start(replace(offered.request, resume=True, finish=True))
    events = wait_for(runner, lambda seen: seen and is_terminal(seen[-1]))
    runner.close()
    workspace.close()
    assert isinstance(events[-1], Result), events[-1]
    tensors = read_tensors(Store(tmp_path / "store").path_of(events[-1].values["model_id"]))
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values() if tensor.is_floating_point())


@posix
@pytest.mark.slow
def test_a_killed_program_takes_its_worker_along_and_the_next_start_offers_the_course(tmp_path, data_folder):
    request = small_request(tmp_path, data_folder, minutes=60.0)
    training_run = TrainingRun(request.folder)
    script = (
        "import sys, time\n"
        "from HSAMSegmentLib.workflows.finetune.training_run import TrainingRun\n"
        "from HSAMSegmentLib.worker.process_runner import ProcessRunner\n"
        "from HSAMSegmentLib.runtime.owned_folders import Workspace\n"
        "runner = ProcessRunner(Workspace(sys.argv[1]))\n"
        "runner.start(TrainingRun(sys.argv[2]).read_request())\n"
        "while True:\n"
        "    runner.poll()\n"
        "    time.sleep(0.05)\n"
    )
    program = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), request.folder])
    wait_until(lambda: training_run.state_file(request.model_id).is_file())
    assert training_run.owner() is not None
    program.kill()
    program.wait()
    wait_until(lambda: training_run.owner() is None)
    (offered,) = unfinished_runs(tmp_path)
    assert offered.has_state
    outcome = outcome_of(run(replace(offered.request, resume=True, finish=True)))
    assert Store(tmp_path / "store").find(outcome.model_id).is_present


def wait_until(condition, seconds=240.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
