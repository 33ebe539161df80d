"""Teaching on an encoder of SAM's kind by clicks, with a real worker: to the end, on a full disk, after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_cases import ABDOMEN_NAMES, small_volume
from small_disk import fill, mounted_disk
from teach_in_a_panel import learned_steps
from teach_panel_stand import TeachStand, add_segmentation, add_volume
from untrained_model import write_untrained_model

pytestmark = [pytest.mark.host, pytest.mark.slow]
PROGRAM = Path(__file__).parents[1].joinpath("teach_in_a_panel.py")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store with a model on a small encoder of SAM's kind, which holds its encoder; the worker finds it, too."""
    from HSAMSegmentLib.weights.store import HOME_VARIABLE, Store

    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "store"))
    store = Store()
    store.models_folder.mkdir(parents=True)
    write_untrained_model(store.models_folder / "tiny.safetensors", title="Tiny SAM", modality="MR")
    return store


@pytest.fixture
def stand(host, scene, store):
    stand = TeachStand(host, store)
    yield stand
    stand.close()


@pytest.fixture
def pair(scene, data_folder):
    volume, labels = small_volume(data_folder)
    node = add_volume(volume)
    return node, add_segmentation(node, labels, {1: ABDOMEN_NAMES[1], 2: ABDOMEN_NAMES[2]})


@pytest.fixture
def small_disk(tmp_path):
    with mounted_disk(tmp_path / "disk", megabytes=100) as folder:
        yield folder


def start(stand, pair, minutes: float):
    """Start from the model on SAM's kind of encoder; returns the course."""
    stand.add(*pair)
    stand.ui.startCombo.setCurrentIndex(stand.ui.startCombo.findText("Tiny SAM"))
    stand.ui.minutesBox.value = minutes
    stand.click(stand.ui.startButton)
    assert stand.part.run.is_busy, stand.status
    return stand.part.run._course


def wait_for_steps(stand, course, more_than: int = 0) -> int:
    """Until a state with more steps than that is on the disk."""
    stand.wait(lambda: course.request_file.is_file())
    stand.wait(lambda: not stand.part.run.is_busy or learned_steps(course) > more_than, seconds=600.0)
    assert stand.part.run.is_busy, stand.status
    return learned_steps(course)


def test_a_model_on_a_sam_encoder_is_taught_to_the_end_and_says_how_good_it_was_before(stand, pair, store):
    from HSAMSegmentLib.weights.bundle import read_manifest

    course = start(stand, pair, minutes=0.3)
    stand.wait_for_end()
    assert "in the list of models" in stand.status
    taught = stand.part.models.selected
    manifest = read_manifest(store.path_of(taught.id))
    assert manifest.architecture.encoder.name == "custom"
    assert manifest.training["start"]["model"] == "tiny"
    assert manifest.training["settings"]["adaptation"] == "frozen"
    before, now = (float(stand.ui.diceTable.item(0, column).text()) for column in (1, 2))
    assert now >= before
    assert not course.folder.exists(), "kept features and copies are gone"


def test_a_disk_that_gets_full_is_said_what_was_learned_is_kept_and_the_next_click_goes_on(stand, pair, small_disk):
    stand.ui.scratchEdit.setCurrentPath(str(small_disk))
    course = start(stand, pair, minutes=60.0)
    wait_for_steps(stand, course)
    filler = fill(small_disk)
    stand.wait_for_end()
    assert stand.status.startswith(f"The disk of {course.folder} is full")
    assert "is kept, and can go on" in stand.status
    assert stand.ui.unfinishedBox.visible
    learned = learned_steps(course)
    assert learned > 0
    filler.unlink()
    stand.click(stand.ui.resumeButton)
    assert wait_for_steps(stand, course, more_than=learned) > learned
    stand.click(stand.ui.stopButton)
    stand.wait_for_end()
    assert "in the list of models" in stand.status
    assert list(small_disk.iterdir()) == []


def test_scans_that_are_deleted_while_they_are_taught_from_change_nothing(stand, scene, pair):
    course = start(stand, pair, minutes=60.0)
    learned = wait_for_steps(stand, course)
    for node in pair:
        scene.RemoveNode(node)
    stand.click(stand.ui.pauseButton)
    stand.wait_for_end()
    assert stand.status.startswith("Paused")
    stand.click(stand.ui.resumeButton)
    assert wait_for_steps(stand, course, more_than=learned) > learned
    stand.click(stand.ui.pauseButton)
    stand.wait_for_end()
    next(course.folder.glob("case-1-scan.npy")).unlink()
    stand.click(stand.ui.resumeButton)
    stand.wait_for_end()
    assert "that was taught from is gone or damaged" in stand.status
    assert stand.ui.discardButton.visible


@pytest.mark.skipif(os.name == "nt", reason="uses POSIX signals")
def test_a_killed_slicer_takes_its_worker_along_and_the_next_one_offers_what_was_learned(
    host, scene, store, data_folder, tmp_path
):
    from HSAMSegmentLib.workflows.finetune.training_run import unfinished_courses

    folder = store.folder / "teaching"
    program = subprocess.Popen([sys.executable, str(PROGRAM), str(data_folder)], stdout=subprocess.PIPE, text=True)
    assert program.stdout.readline().strip() == "LEARNING", "it printed this when a state was on the disk"
    assert unfinished_courses(folder) == [], "somebody works on it"
    os.kill(program.pid, signal.SIGKILL)
    program.wait()
    program.stdout.close()
    deadline = time.monotonic() + 60.0
    while not unfinished_courses(folder):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    again = TeachStand(host, store)
    assert "is not finished" in again.ui.unfinishedLabel.text
    again.click(again.ui.finishButton)
    again.wait_for_end()
    assert "in the list of models" in again.status
    assert not again.ui.unfinishedBox.visible
    again.close()
