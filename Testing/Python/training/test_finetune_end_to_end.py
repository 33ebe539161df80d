"""Teaching by clicks with a real worker: the whole way, and what a kill, a closed scene and a closed panel leave."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from small_cases import ABDOMEN_NAMES, small_volume
from teach_panel_stand import TeachStand, add_segmentation, add_volume

pytestmark = [pytest.mark.host, pytest.mark.slow]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store beside the models that come with the program; the worker finds it by the variable."""
    from HSAMSegmentLib.weights.store import HOME_VARIABLE, Store

    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "store"))
    return Store()


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


def test_correct_and_learn_ends_in_a_better_model_that_can_be_shared(
    host, stand, scene, data_folder, tmp_path, monkeypatch
):
    """Segment with an embedded model, paint a correction, learn, export, import elsewhere, segment another scan."""
    import slicer

    from HSAMSegmentLib.slicer.nodes.segment_session import Order
    from HSAMSegmentLib.weights.store import HOME_VARIABLE, Store
    from HSAMSegmentLib.workflows.finetune.finetune_request import TaughtOutcome

    folder = data_folder / "ct_totalsegmentator"
    scan = slicer.util.loadVolume(str(folder / "images" / "ct_example_30.nii.gz"), {})
    truth = slicer.util.loadLabelVolume(str(folder / "labels" / "ct_example_30.nii.gz"), {})
    made = stand.shared_engine.run(Order(scan, "abdomen-mr-t2")).segmentation_node
    liver = (slicer.util.arrayFromVolume(truth) == 1).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(liver, made, made.GetSegmentation().GetNthSegmentID(0), scan)
    stand.part.show_parameters(stand.node)
    assert stand.ui.doubtTable.rowCount > 0
    stand.ui.minutesBox.value = 10.0
    outcomes = []
    shown = stand.part.live.finish
    stand.part.live.finish = lambda outcome: (outcomes.append(outcome), shown(outcome))
    stand.click(stand.ui.learnButton)
    assert stand.part.run.is_busy, stand.status
    stand.wait(lambda: has_risen(stand, "liver", by=0.25) or not stand.part.run.is_busy, seconds=700.0)
    stand.click(stand.ui.stopButton)  # a minute on a fast computer; on a slow one as long as it takes
    stand.wait_for_end()
    (outcome,) = outcomes
    assert isinstance(outcome, TaughtOutcome)
    assert outcome.dice["liver"] > outcome.start_dice["liver"] + 0.2
    assert "in the list of models" in stand.status, stand.status
    (said,) = stand.ui.diceNoteLabel.text.splitlines()
    assert "On other scans it will be worse" in said
    selection = slicer.app.applicationLogic().GetSelectionNode()
    assert selection.GetActivePlotChartID() == stand.part.live.chart.chart_node.GetID()
    assert f"{outcome.dice['liver']:.3f}" in stand.cells(stand.ui.diceTable, 2)
    assert not stand.ui.previewLabel.pixmap.isNull()
    assert stand.ui.startCombo.findData(outcome.model_id) > 0, "the next teaching can start from it"
    table = stand.part.live.chart.table_node.GetTable()
    assert table.GetColumnByName("Dice liver").GetNumberOfTuples() == table.GetNumberOfRows() > 1

    stand.answers.path = str(tmp_path / "liver.safetensors")
    stand.click(stand.ui.exportButton)
    stand.wait(lambda: not stand.part.models.is_busy, seconds=120.0)
    other = slicer.util.loadVolume(str(folder / "images" / "ct_pulm.nii.gz"), {})
    here = labels_of(stand.shared_engine.run(Order(other, outcome.model_id)))
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "elsewhere"))
    elsewhere = TeachStand(host, Store())
    elsewhere.answers.path = str(tmp_path / "liver.safetensors")
    elsewhere.click(elsewhere.ui.importButton)
    elsewhere.wait(lambda: not elsewhere.part.models.is_busy, seconds=120.0)
    imported = elsewhere.part.models.selected
    assert imported.title == outcome.title
    there = labels_of(elsewhere.shared_engine.run(Order(other, imported.id)))
    elsewhere.close()
    assert list(here) == list(there)
    assert here["liver"].any()
    for organ, mask in here.items():
        assert np.array_equal(mask, there[organ]), f"{organ} is another one after export and import"


def has_risen(stand, organ: str, *, by: float) -> bool:
    """Whether the best Dice of an organ that the chart's table shows is that much above its first one."""
    chart = stand.part.live.chart
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


def start_long(stand, pair, minutes=60.0):
    """Start a teaching that would take an hour, and wait until it learned something."""
    stand.add(*pair)
    stand.ui.minutesBox.value = minutes
    stand.click(stand.ui.startButton)
    course = stand.part.run._course
    stand.wait(lambda: course.request_file.is_file())
    model_id = course.read_request().model_id
    stand.wait(lambda: course.state_file(model_id).is_file() or not stand.part.run.is_busy)
    assert stand.part.run.is_busy, stand.status
    return course


def test_a_killed_worker_is_said_and_what_was_learned_becomes_a_model(stand, pair, store):
    start_long(stand, pair)
    os.kill(stand.part._engine._session._runner.worker_pid, signal.SIGKILL)
    stand.wait_for_end()
    assert "ended from outside" in stand.status
    assert "is kept, and can go on" in stand.status
    assert stand.ui.unfinishedBox.visible
    assert "is not finished" in stand.ui.unfinishedLabel.text
    stand.click(stand.ui.finishButton)
    stand.wait_for_end()
    assert "in the list of models" in stand.status
    assert not stand.ui.unfinishedBox.visible
    assert store.find(stand.part.models.selected.id).organs == ("liver", "right kidney")


def test_a_panel_that_goes_away_pauses_and_the_next_one_offers_to_go_on(host, stand, pair, store):
    course = start_long(stand, pair)
    stand.part.close()
    assert course.owner() is None
    again = TeachStand(host, store)
    assert again.ui.unfinishedBox.visible
    again.click(again.ui.resumeButton)
    again.wait(lambda: "step" in again.ui.teachProgressBar.format)
    again.click(again.ui.stopButton)
    assert not again.ui.stopButton.enabled
    again.wait_for_end()
    assert "stopped by you" in again.status
    assert not again.ui.unfinishedBox.visible
    again.close()


def test_a_closed_scene_and_deleted_scans_do_not_disturb_a_teaching(host, stand, scene, pair):
    stand.add(*pair)
    stand.ui.minutesBox.value = 0.4
    stand.click(stand.ui.startButton)
    stand.wait(lambda: stand.part.run._course.request_file.is_file())
    stand.part.leave_scene()
    scene.Clear(0)
    node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "HSAMSegment")
    stand.part.show_parameters(node)
    assert stand.ui.caseTable.rowCount == 0
    assert stand.part.run.is_busy
    stand.wait_for_end()
    assert "in the list of models" in stand.status
    assert stand.part.live.chart.table_node.GetScene() is scene, "the numbers come into the scene that is open"


def test_a_pause_can_be_resumed_or_discarded_after_a_question(stand, pair):
    course = start_long(stand, pair)
    stand.click(stand.ui.pauseButton)
    stand.wait_for_end()
    assert stand.status.startswith("Paused")
    stand.answers.agrees = False
    stand.click(stand.ui.discardButton)
    assert course.folder.exists()
    stand.answers.agrees = True
    stand.click(stand.ui.discardButton)
    assert not course.folder.exists()
    assert not stand.ui.unfinishedBox.visible


def test_files_are_read_by_the_worker_and_their_row_says_what_is_in_them(stand, data_folder):
    from HSAMSegmentLib.slicer.nodes.finetune.cases import FilePair

    folder = data_folder / "chaos_t2"
    paths = [str(folder / kind / "chaos_t2_02.nii.gz") for kind in ("images", "labels")]
    stand.answers.open_path = lambda title, kinds: paths["labels" in title]
    stand.click(stand.ui.addFilesButton)
    stand.wait(lambda: stand.part.pairs[0].summary is not None)
    assert isinstance(stand.part.pairs[0], FilePair)
    assert stand.cells(stand.ui.caseTable, 2) == ["27 of 31"]
    assert stand.ui.startButton.enabled
