"""Fine-tuning by clicks with a real worker: the whole way, and what a kill, a closed scene and a closed panel leave."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from finetune_panel_driver import FinetunePanelDriver, add_segmentation, add_volume
from small_cases import ABDOMEN_NAMES, small_volume

from HSAMSegmentLib.io.volume_files import read_volume

pytestmark = [pytest.mark.host, pytest.mark.slow]

LIVER, STOMACH = 1, 6  # values of the label map


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store beside the models that come with the program; the worker finds it by the variable."""
    from HSAMSegmentLib.weights.store import HOME_VARIABLE, Store

    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "store"))
    return Store()


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


def test_correct_and_learn_ends_in_a_better_model_that_can_be_shared(
    host, driver, scene, data_folder, tmp_path, monkeypatch
):
    """Segment with a built-in model, correct, add an organ that it lacks, learn, export, import elsewhere, segment."""
    import slicer

    from HSAMSegmentLib.slicer.nodes.segment_session import bind_request
    from HSAMSegmentLib.weights.store import HOME_VARIABLE, Store
    from HSAMSegmentLib.workflows.finetune.finetune_request import FinetuneOutcome

    folder = data_folder / "ct_totalsegmentator"
    scan = slicer.util.loadVolume(str(folder / "images" / "ct_example_30.nii.gz"), {})
    truth = slicer.util.loadLabelVolume(str(folder / "labels" / "ct_example_30.nii.gz"), {})
    made = driver.shared_engine.run(bind_request(scan, "abdomen-mr")).segmentation_node
    added = made.GetSegmentation().AddEmptySegment("stomach", "stomach")
    for segment, value in ((made.GetSegmentation().GetNthSegmentID(0), LIVER), (added, STOMACH)):
        drawn = (slicer.util.arrayFromVolume(truth) == value).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, made, segment, scan)
    driver.tab.show_parameters(driver.node)
    assert driver.ui.doubtTable.rowCount > 0
    driver.ui.minutesBox.value = 10.0
    outcomes = []
    shown = driver.tab.live.finish
    driver.tab.live.finish = lambda outcome: (outcomes.append(outcome), shown(outcome))
    driver.click(driver.ui.learnButton)
    assert driver.tab.run.is_busy, driver.status
    driver.wait(lambda: has_risen(driver, "stomach", by=0.25) or not driver.tab.run.is_busy, seconds=700.0)
    driver.click(driver.ui.stopButton)  # a minute on a fast computer; on a slow one as long as it takes
    driver.wait_for_end()
    (outcome,) = outcomes
    assert isinstance(outcome, FinetuneOutcome)
    assert outcome.dice["stomach"] > outcome.start_dice["stomach"] + 0.2
    assert outcome.start_dice["liver"] > 0.8, "the starting model knows it at the size in which it sees it"
    assert "in the list of models" in driver.status, driver.status
    (said,) = driver.ui.diceNoteLabel.text.splitlines()
    assert "On other scans it will be worse" in said
    selection = slicer.app.applicationLogic().GetSelectionNode()
    assert selection.GetActivePlotChartID() == driver.tab.live.chart.chart_node.GetID()
    assert f"{outcome.dice['liver']:.3f}" in driver.cells(driver.ui.diceTable, 2)
    assert not driver.ui.previewLabel.pixmap.isNull()
    assert driver.ui.startCombo.findData(outcome.model_id) > 0, "the next fine-tuning can start from it"
    table = driver.tab.live.chart.table_node.GetTable()
    assert table.GetColumnByName("Dice liver").GetNumberOfTuples() == table.GetNumberOfRows() > 1

    driver.answers.path = str(tmp_path / "liver.safetensors")
    driver.click(driver.ui.exportButton)
    driver.wait(lambda: not driver.tab.models.is_busy, seconds=120.0)
    other = slicer.util.loadVolume(str(folder / "images" / "ct_pulm.nii.gz"), {})
    here = labels_of(driver.shared_engine.run(bind_request(other, outcome.model_id)))
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "elsewhere"))
    elsewhere = FinetunePanelDriver(host, Store())
    elsewhere.answers.path = str(tmp_path / "liver.safetensors")
    elsewhere.click(elsewhere.ui.importButton)
    elsewhere.wait(lambda: not elsewhere.tab.models.is_busy, seconds=120.0)
    imported = elsewhere.tab.models.selected
    assert imported.title == outcome.title
    there = labels_of(elsewhere.shared_engine.run(bind_request(other, imported.id)))
    elsewhere.close()
    assert list(here) == list(there)
    assert here["liver"].any()
    for organ, mask in here.items():
        assert np.array_equal(mask, there[organ]), f"{organ} is another one after export and import"


def has_risen(driver, organ: str, *, by: float) -> bool:
    """Whether the best Dice of an organ that the chart's table shows is that much above its first one."""
    chart = driver.tab.live.chart
    if chart is None or chart.table_node is None:
        return False
    column = chart.table_node.GetTable().GetColumnByName(f"Dice {organ}")
    values = [column.GetValue(row) for row in range(column.GetNumberOfTuples())]
    return max(values) > values[0] + by


def labels_of(written) -> dict[str, np.ndarray]:
    """The mask of each organ of a result, on the whole grid of its scan."""
    import slicer

    segmentation = written.segmentation_node.GetSegmentation()
    return {
        segmentation.GetSegment(identifier).GetName(): slicer.util.arrayFromSegmentBinaryLabelmap(
            written.segmentation_node, identifier, written.volume_node
        )
        for identifier in segmentation.GetSegmentIDs()
    }


def start_long(driver, pair, minutes=60.0):
    """Start a fine-tuning that would take an hour, and wait until it learned something."""
    driver.add(*pair)
    driver.ui.minutesBox.value = minutes
    driver.click(driver.ui.startButton)
    training_run = driver.tab.run._training_run
    driver.wait(lambda: training_run.request_file.is_file())
    model_id = training_run.read_request().model_id
    driver.wait(lambda: training_run.state_file(model_id).is_file() or not driver.tab.run.is_busy)
    assert driver.tab.run.is_busy, driver.status
    return training_run


def test_a_killed_worker_is_said_and_what_was_learned_becomes_a_model(driver, pair, store):
    start_long(driver, pair)
    os.kill(driver.tab._engine._session._runner.worker_pid, signal.SIGKILL)
    driver.wait_for_end()
    assert "ended from outside" in driver.status
    assert "is kept, and can go on" in driver.status
    assert driver.ui.unfinishedBox.visible
    assert "is not finished" in driver.ui.unfinishedLabel.text
    driver.click(driver.ui.finishButton)
    driver.wait_for_end()
    assert "in the list of models" in driver.status
    assert not driver.ui.unfinishedBox.visible
    assert store.find(driver.tab.models.selected.id).organs == ("liver", "right kidney")


def test_a_panel_that_goes_away_pauses_and_the_next_one_offers_to_go_on(host, driver, pair, store):
    training_run = start_long(driver, pair)
    driver.tab.close()
    assert training_run.owner() is None
    again = FinetunePanelDriver(host, store)
    assert again.ui.unfinishedBox.visible
    again.click(again.ui.resumeButton)
    again.wait(lambda: "step" in again.ui.finetuneProgressBar.format)
    again.click(again.ui.stopButton)
    assert not again.ui.stopButton.enabled
    again.wait_for_end()
    assert "stopped by you" in again.status
    assert not again.ui.unfinishedBox.visible
    again.close()


def test_a_closed_scene_and_deleted_scans_do_not_disturb_a_finetuning(host, driver, scene, pair):
    driver.add(*pair)
    driver.ui.minutesBox.value = 0.4
    driver.click(driver.ui.startButton)
    driver.wait(lambda: driver.tab.run._training_run.request_file.is_file())
    driver.tab.leave_scene()
    scene.Clear(0)
    node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "HSAMSegment")
    driver.tab.show_parameters(node)
    assert driver.ui.caseTable.rowCount == 0
    assert driver.tab.run.is_busy
    driver.wait_for_end()
    assert "in the list of models" in driver.status
    assert driver.tab.live.chart.table_node.GetScene() is scene, "the numbers come into the scene that is open"


def test_a_pause_can_be_resumed_or_discarded_after_a_question(driver, pair):
    training_run = start_long(driver, pair)
    driver.click(driver.ui.pauseButton)
    driver.wait_for_end()
    assert driver.status.startswith("Paused")
    driver.answers.agrees = False
    driver.click(driver.ui.discardButton)
    assert training_run.folder.exists()
    driver.answers.agrees = True
    driver.click(driver.ui.discardButton)
    assert not training_run.folder.exists()
    assert not driver.ui.unfinishedBox.visible


def test_files_are_read_by_the_worker_and_their_row_says_what_is_in_them(driver, data_folder):
    from HSAMSegmentLib.slicer.nodes.finetune.cases import FilePair

    folder = data_folder / "chaos_t2"
    paths = [str(folder / kind / "chaos_t2_02.nii.gz") for kind in ("images", "labels")]
    driver.answers.open_path = lambda title, kinds: paths["labels" in title]
    driver.click(driver.ui.addFilesButton)
    driver.wait(lambda: driver.tab.pairs[0].summary is not None)
    assert isinstance(driver.tab.pairs[0], FilePair)
    drawn = read_volume(paths[1]).array
    labeled = int(drawn.any(axis=(1, 2)).sum())
    assert driver.cells(driver.ui.caseTable, 2) == [f"{labeled} of {len(drawn)}"]
    assert driver.ui.startButton.enabled
