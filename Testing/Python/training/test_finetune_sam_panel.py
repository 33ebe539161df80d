"""Fine-tuning on an encoder of SAM's kind by clicks, with a real worker: to the end, on a full disk, after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from finetune_in_a_panel import learned_steps
from finetune_panel_driver import FinetunePanelDriver, add_segmentation, add_volume
from small_cases import ABDOMEN_NAMES, small_volume
from small_disk import fill, mounted_disk
from untrained_model import write_untrained_model

pytestmark = [pytest.mark.host, pytest.mark.slow]
PROGRAM = Path(__file__).parents[1].joinpath("finetune_in_a_panel.py")


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
def driver(host, scene, store):
    driver = FinetunePanelDriver(host, store)
    yield driver
    driver.close()


@pytest.fixture
def pair(scene, data_folder):
    volume, labels = small_volume(data_folder)
    node = add_volume(volume)
    return node, add_segmentation(node, labels, {1: ABDOMEN_NAMES[1], 2: ABDOMEN_NAMES[2]})


@pytest.fixture
def small_disk(tmp_path):
    with mounted_disk(tmp_path / "disk", megabytes=100) as folder:
        yield folder


def start(driver, pair, minutes: float):
    """Start from the model on SAM's kind of encoder; returns the training run."""
    driver.add(*pair)
    driver.ui.startCombo.setCurrentIndex(driver.ui.startCombo.findText("Tiny SAM"))
    driver.ui.minutesBox.value = minutes
    driver.click(driver.ui.startButton)
    assert driver.tab.run.is_busy, driver.status
    return driver.tab.run._training_run


def wait_for_steps(driver, training_run, more_than: int = 0) -> int:
    """Until a state with more steps than that is on the disk."""
    driver.wait(lambda: training_run.request_file.is_file())
    driver.wait(lambda: not driver.tab.run.is_busy or learned_steps(training_run) > more_than, seconds=600.0)
    assert driver.tab.run.is_busy, driver.status
    return learned_steps(training_run)


def test_a_model_on_a_sam_encoder_is_finetuned_to_the_end_and_says_how_good_it_was_before(driver, pair, store):
    from HSAMSegmentLib.weights.bundle import read_manifest

    training_run = start(driver, pair, minutes=0.3)
    driver.wait_for_end()
    assert "in the list of models" in driver.status
    finetuned = driver.tab.models.selected
    manifest = read_manifest(store.path_of(finetuned.id))
    assert manifest.architecture.encoder.name == "custom"
    assert manifest.training["start"]["model"] == "tiny"
    assert manifest.training["settings"]["adaptation"] == "frozen"
    before, now = (float(driver.ui.diceTable.item(0, column).text()) for column in (1, 2))
    assert now >= before
    assert not training_run.folder.exists(), "kept features and copies are gone"


def test_a_disk_that_gets_full_is_said_what_was_learned_is_kept_and_the_next_click_goes_on(driver, pair, small_disk):
    driver.ui.scratchEdit.setCurrentPath(str(small_disk))
    training_run = start(driver, pair, minutes=60.0)
    wait_for_steps(driver, training_run)
    filler = fill(small_disk)
    driver.wait_for_end()
    assert driver.status.startswith(f"The disk of {training_run.folder} is full")
    assert "is kept, and can go on" in driver.status
    assert driver.ui.unfinishedBox.visible
    learned = learned_steps(training_run)
    assert learned > 0
    filler.unlink()
    driver.click(driver.ui.resumeButton)
    assert wait_for_steps(driver, training_run, more_than=learned) > learned
    driver.click(driver.ui.stopButton)
    driver.wait_for_end()
    assert "in the list of models" in driver.status
    assert list(small_disk.iterdir()) == []


def test_scans_that_are_deleted_while_they_are_finetuned_from_change_nothing(driver, scene, pair):
    training_run = start(driver, pair, minutes=60.0)
    learned = wait_for_steps(driver, training_run)
    for node in pair:
        scene.RemoveNode(node)
    driver.click(driver.ui.pauseButton)
    driver.wait_for_end()
    assert driver.status.startswith("Paused")
    driver.click(driver.ui.resumeButton)
    assert wait_for_steps(driver, training_run, more_than=learned) > learned
    driver.click(driver.ui.pauseButton)
    driver.wait_for_end()
    next(training_run.folder.glob("case-1-scan.npy")).unlink()
    driver.click(driver.ui.resumeButton)
    driver.wait_for_end()
    assert "that was trained on is gone or damaged" in driver.status
    assert driver.ui.discardButton.visible


@pytest.mark.skipif(os.name == "nt", reason="uses POSIX signals")
def test_a_killed_slicer_takes_its_worker_along_and_the_next_one_offers_what_was_learned(
    host, scene, store, data_folder, tmp_path
):
    from HSAMSegmentLib.workflows.finetune.training_run import unfinished_runs

    folder = store.folder / "teaching"
    program = subprocess.Popen([sys.executable, str(PROGRAM), str(data_folder)], stdout=subprocess.PIPE, text=True)
    assert program.stdout.readline().strip() == "LEARNING", "it printed this when a state was on the disk"
    assert unfinished_runs(folder) == [], "somebody works on it"
    os.kill(program.pid, signal.SIGKILL)
    program.wait()
    program.stdout.close()
    deadline = time.monotonic() + 60.0
    while not unfinished_runs(folder):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    again = FinetunePanelDriver(host, store)
    assert "is not finished" in again.ui.unfinishedLabel.text
    again.click(again.ui.finishButton)
    again.wait_for_end()
    assert "in the list of models" in again.status
    assert not again.ui.unfinishedBox.visible
    again.close()
