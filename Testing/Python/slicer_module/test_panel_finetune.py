"""The Fine-tune tab, driven by clicks in the host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from finetune_panel_driver import FinetunePanelDriver, add_segmentation, add_volume, small_labels
from small_cases import ABDOMEN_NAMES, small_volume

pytestmark = pytest.mark.host
SMALL_NAMES = {1: ABDOMEN_NAMES[1], 2: ABDOMEN_NAMES[2]}


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
    return node, add_segmentation(node, labels, SMALL_NAMES)


def test_an_empty_tab_says_what_to_do_first(driver):
    assert not driver.ui.startButton.enabled
    assert "Add at least one scan" in driver.status
    assert not driver.ui.addPairButton.enabled
    assert not driver.ui.pauseButton.enabled
    assert not driver.ui.stopButton.enabled


def test_one_click_adds_the_pair_and_its_row_says_what_is_in_it(driver, pair):
    driver.add(*pair)
    assert driver.cells(driver.ui.caseTable, 0) == ["chaos_t2_02"]
    assert driver.cells(driver.ui.caseTable, 1) == ["liver, right kidney"]
    labeled = int((small_labels(pair) > 0).any(axis=(1, 2)).sum())
    assert driver.cells(driver.ui.caseTable, 2) == [f"{labeled} of 14"]
    assert driver.cells(driver.ui.finetuneOrganTable, 0) == ["liver", "right kidney"]
    assert driver.ui.startButton.enabled
    assert driver.status == ""


def test_the_same_pair_again_is_one_row(driver, pair):
    driver.add(*pair)
    driver.add(*pair)
    assert driver.ui.caseTable.rowCount == 1


def test_what_a_finetuning_needs_and_starts_from_is_said_before_the_start(driver, pair):
    driver.add(*pair)
    text = driver.ui.estimateLabel.text
    assert "Starts from" in text
    assert "abdomen" in text.lower()
    assert "of memory" in text
    assert "of disk" in text
    assert "5 min" in text


def test_the_tab_opens_and_says_what_it_needs_before_the_packages_of_the_worker_are_installed(
    host, scene, store, pair, monkeypatch
):
    monkeypatch.setitem(sys.modules, "psutil", None)
    training_run = store.folder / "teaching" / "course-from-another-slicer"
    training_run.mkdir(parents=True)
    (training_run / "running.json").write_text('{"pid": 1, "started": 0.0}')
    driver = FinetunePanelDriver(host, store)
    driver.add(*pair)
    assert "of memory, " in driver.ui.estimateLabel.text
    assert driver.ui.startButton.enabled
    driver.close()


def test_opening_the_tab_imports_nothing_that_slicer_does_not_have():
    script = (
        "import sys; import HSAMSegmentLib.workflows.finetune.training_run, "
        ""
        "HSAMSegmentLib.workflows.finetune.cost_estimate, "
        "HSAMSegmentLib.workflows.finetune.inspect_cases, HSAMSegmentLib.report.model_card, "
        "HSAMSegmentLib.report.correction_slices; "
        "found = {'torch', 'monai', 'psutil', 'scipy', 'matplotlib', 'segment_anything'} & set(sys.modules); "
        "sys.exit(', '.join(found) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_scratch_folder_that_is_too_full_is_said_before_the_start(driver, pair, monkeypatch):
    import collections

    from HSAMSegmentLib.workflows.finetune import cost_estimate

    usage = collections.namedtuple("usage", "total used free")(10, 9, 1)
    monkeypatch.setattr(cost_estimate.shutil, "disk_usage", lambda folder: usage)
    driver.add(*pair)
    assert not driver.ui.startButton.enabled
    assert "Free some space" in driver.status


def test_a_scratch_folder_that_cannot_be_written_is_said_and_nothing_starts(driver, pair, tmp_path):
    (tmp_path / "a-file").write_text("")
    driver.add(*pair)
    driver.ui.scratchEdit.setCurrentPath(str(tmp_path / "a-file"))
    driver.click(driver.ui.startButton)
    assert "a-file is a file" in driver.status
    assert not driver.tab.run.is_busy
    assert driver.ui.startButton.enabled


@pytest.mark.skipif(os.name == "nt", reason="/dev/full is a thing of Linux")
def test_a_disk_that_gets_full_while_the_scan_is_copied_is_said_and_leaves_nothing(driver, pair, monkeypatch):
    from HSAMSegmentLib.slicer.nodes.finetune import cases as finetune_cases
    from HSAMSegmentLib.worker.array_export import ArrayExport

    monkeypatch.setattr(finetune_cases, "ArrayExport", lambda array, file: ArrayExport(array, Path("/dev/full")))
    driver.add(*pair)
    driver.click(driver.ui.startButton)
    driver.wait_for_end()
    assert "The disk is full" in driver.status
    assert list(driver.tab.scratch_folder.glob("course-*")) == []
    assert not driver.ui.unfinishedBox.visible


def test_a_row_that_cannot_be_used_says_why_and_the_start_is_off(driver, scene, pair):
    driver.add(*pair)
    scene.RemoveNode(pair[0])
    driver.tab.show_parameters(driver.node)
    assert driver.ui.caseTable.rowCount == 0, "a pair that is gone is not a row of the next scene"
    volume = add_volume_like_nothing()
    empty = add_segmentation(volume, np.zeros((4, 8, 8), np.uint8), {1: "liver"}, "Empty")
    driver.add(volume, empty)
    assert "no labeled voxel" in driver.cells(driver.ui.caseTable, 1)[0]
    assert not driver.ui.startButton.enabled
    assert "no labeled voxel" in driver.status
    driver.click(driver.ui.removeCaseButton)
    assert driver.ui.caseTable.rowCount == 0


def add_volume_like_nothing():
    import slicer

    return slicer.util.addVolumeFromArray(np.zeros((4, 8, 8), np.int16), None, "Nothing")


def test_an_organ_without_its_check_mark_is_not_learned(driver, pair):
    import qt

    driver.add(*pair)
    for row in range(2):
        driver.ui.finetuneOrganTable.item(row, 0).setCheckState(qt.Qt.Unchecked)
        assert driver.tab.organs.learned == (("right kidney",) if row == 0 else ())
    assert not driver.ui.startButton.enabled
    assert "Check at least one organ" in driver.status


def test_two_names_of_one_organ_are_joined_and_others_can_be(driver, pair, data_folder):
    volume, labels = small_volume(data_folder, "chaos_t2_03")
    other = add_volume(volume)
    driver.add(*pair)
    driver.add(other, add_segmentation(other, labels, {1: "Liver", 2: "my kidney"}, "Other"))
    assert driver.cells(driver.ui.finetuneOrganTable, 2) == ["liver", "right kidney", "liver", "my kidney"]
    assert driver.tab.organs.learned == ("liver", "right kidney", "my kidney")
    driver.ui.finetuneOrganTable.item(3, 2).setText("right kidney")
    assert driver.tab.organs.learned == ("liver", "right kidney")


def test_cases_and_choices_are_saved_with_the_scene_and_restored(driver, host, store, pair):
    import qt

    driver.add(*pair)
    driver.ui.finetuneOrganTable.item(0, 0).setCheckState(qt.Qt.Unchecked)
    driver.ui.minutesBox.value = 2.5
    driver.ui.titleEdit.setText("Kidney")
    driver.ui.titleEdit.editingFinished.emit()
    again = FinetunePanelDriver(host, store, node=driver.node)
    assert again.cells(again.ui.caseTable, 0) == ["chaos_t2_02"]
    assert again.tab.organs.learned == ("right kidney",)
    assert again.ui.minutesBox.value == 2.5
    assert again.ui.titleEdit.text == "Kidney"
    again.close()


def test_settings_of_another_version_are_no_error(driver):
    driver.node.SetParameter("TeachSettings", json.dumps({"minutes": 3.0, "invented": 1, "files": []}))
    driver.tab.show_parameters(driver.node)
    assert driver.ui.minutesBox.value == 3.0
    driver.node.SetParameter("TeachSettings", "no json")
    driver.tab.show_parameters(driver.node)
    assert driver.ui.minutesBox.value == 5.0


def test_nothing_in_the_scene_is_changed_by_looking(driver, pair):
    times = [node.GetMTime() for node in pair]
    parts = pair[1].GetSegmentation().GetMTime()
    driver.add(*pair)
    assert [node.GetMTime() for node in pair] == times
    assert pair[1].GetSegmentation().GetMTime() == parts


def test_the_chart_comes_into_sight_with_the_first_numbers_unless_it_is_not_wanted(driver):
    import slicer

    from HSAMSegmentLib.labels.terminology import label_set_of
    from HSAMSegmentLib.workflows.finetune.validation_record import ValidationRecord

    live, numbers = driver.tab.live, ValidationRecord(0, 1.0, None, {"liver": 0.5}, True)
    selection = slicer.app.applicationLogic().GetSelectionNode()
    live.begin("First", label_set_of({1: "liver"}))
    live.add(numbers)
    first = live.chart.chart_node.GetID()
    assert selection.GetActivePlotChartID() == first
    driver.ui.liveChartBox.checked = False
    live.begin("Second", label_set_of({1: "liver"}))
    live.add(numbers)
    assert selection.GetActivePlotChartID() == first
    driver.click(driver.ui.chartButton)
    assert selection.GetActivePlotChartID() == live.chart.chart_node.GetID()
    assert '"live_chart": false' in driver.node.GetParameter("TeachSettings"), "the choice is kept with the scene"


def test_a_model_that_is_no_better_than_its_start_is_said_to_be_no_better(driver):
    from HSAMSegmentLib.labels.terminology import label_set_of
    from HSAMSegmentLib.workflows.finetune.finetune_request import FinetuneOutcome

    driver.tab.live.begin("Liver", label_set_of({1: "liver"}))
    outcome = FinetuneOutcome("liver", "Liver", {"liver": 0.7}, {"liver": 0.7}, "held-out slices of the same scan")
    driver.tab.live.finish(outcome)
    assert "did not get better" in driver.ui.diceNoteLabel.text
    assert driver.cells(driver.ui.diceTable, 1) == driver.cells(driver.ui.diceTable, 2) == ["0.700"]


# --- the tabs beside it


def test_the_result_of_the_segment_tab_leads_here_and_a_finetuned_model_leads_back(host, scene, store, pair):
    from finetune_panel_driver import FORMS
    from untrained_model import write_untrained_model

    from HSAMSegmentLib.slicer.nodes.segment_session import Written
    from HSAMSegmentLib.slicer.nodes.volumes import volume_geometry
    from HSAMSegmentLib.slicer.panels.engine import Engine
    from HSAMSegmentLib.slicer.panels.shell import Shell
    from HSAMSegmentLib.slicer.panels.tabs import FINETUNE, SEGMENT
    from HSAMSegmentLib.slicer.panels.widgets.model_list import StoreModels
    from HSAMSegmentLib.workflows.segment.segment_request import SegmentOutcome

    engine = Engine()
    node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "HSAMSegment")
    shell = Shell(engine, lambda name: str(FORMS / name), lambda: node, models=StoreModels(store))
    shell.enter()
    segment = shell.open(SEGMENT)
    outcome = SegmentOutcome(volume_geometry(pair[0]), (0,) * 6, "", (), "abdomen-mr", "Abdomen")
    segment.result.show(Written(outcome, pair[1], pair[0]), show_3d=False)
    segment.ui.learnFromButton.click()
    finetune = shell.open(FINETUNE)
    assert shell.widget.currentIndex == 1
    assert finetune.ui.finetuneScanSelector.currentNode() is pair[0]
    assert finetune.ui.finetuneSegmentationSelector.currentNode() is pair[1]
    store.models_folder.mkdir(parents=True)
    write_untrained_model(store.models_folder / "tiny.safetensors", title="Fine-tuned a moment ago")
    shell.open(SEGMENT)
    assert segment.ui.modelCombo.findText("Fine-tuned a moment ago") >= 0
    shell.close()
    engine.close()


# --- what the user's own models offer


@pytest.fixture
def own_model(store):
    from untrained_model import write_untrained_model

    store.models_folder.mkdir(parents=True)
    return write_untrained_model(store.models_folder / "tiny.safetensors", title="My tiny model")


def transfer(driver, button):
    """Click and wait for the end of an import or export."""
    driver.click(button)
    driver.wait(lambda: not driver.tab.models.is_busy, seconds=60.0)


def test_a_model_is_exported_to_one_file_deleted_after_a_question_and_imported_again(driver, own_model, tmp_path):
    driver.tab.show_parameters(driver.node)
    assert driver.ui.myModelCombo.currentText == "My tiny model"
    assert "Finds: Liver, Right kidney" in driver.ui.cardLabel.text
    driver.answers.path = str(tmp_path / "shared.safetensors")
    transfer(driver, driver.ui.exportButton)
    assert "one file is all" in driver.status
    exported = (tmp_path / "shared.safetensors").read_bytes()
    assert exported == own_model.read_bytes()
    driver.answers.agrees = False
    driver.click(driver.ui.deleteButton)
    assert own_model.exists(), "the user said no"
    driver.answers.agrees = True
    driver.click(driver.ui.deleteButton)
    assert not own_model.exists()
    assert "cannot be undone" in driver.answers.questions[-1]
    assert not driver.ui.exportButton.enabled
    transfer(driver, driver.ui.importButton)
    assert driver.ui.myModelCombo.currentText == "My tiny model"
    assert "'My tiny model' was imported" in driver.status
    assert own_model.read_bytes() == exported


def test_a_file_that_is_no_model_is_refused_with_a_sentence(driver, tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"nothing of use")
    driver.answers.path = str(tmp_path / "broken.safetensors")
    transfer(driver, driver.ui.importButton)
    assert "broken.safetensors" in driver.status
    assert driver.ui.finetuneCopyButton.visible


def test_a_model_that_cannot_be_exported_there_is_said(driver, own_model, tmp_path):
    driver.tab.show_parameters(driver.node)
    (tmp_path / "a-file").write_text("")
    driver.answers.path = str(tmp_path / "a-file" / "model.safetensors")
    transfer(driver, driver.ui.exportButton)
    assert "a-file is a file" in driver.status
    assert own_model.exists()


# --- correct and learn


@pytest.fixture
def result(scene, pair):
    """A segmentation as a model leaves it."""
    from HSAMSegmentLib.report.correction_slices import DoubtfulSlice
    from HSAMSegmentLib.slicer.nodes.segmentations.segments import DOUBTS_ATTRIBUTE, MODEL_ATTRIBUTE, SOURCE_ROLE

    doubts = [DoubtfulSlice(9, (20, 30, 9), "liver", 0.41, 80.0), DoubtfulSlice(4, (21, 31, 4), "liver", 0.6, 40.0)]
    volume, node = pair
    node.SetAttribute(MODEL_ATTRIBUTE, "abdomen-mr")
    node.SetAttribute(DOUBTS_ATTRIBUTE, json.dumps([asdict(item) for item in doubts]))
    node.SetNodeReferenceID(SOURCE_ROLE, volume.GetID())
    return volume, node


def test_the_newest_result_is_chosen_with_its_scan_and_says_who_made_it(driver, result):
    driver.tab.show_parameters(driver.node)
    assert driver.ui.finetuneScanSelector.currentNode() is result[0]
    assert driver.ui.finetuneSegmentationSelector.currentNode() is result[1]
    assert driver.ui.correctSection.visible
    assert "Abdomen, MR of any contrast" in driver.ui.correctLabel.text


def test_a_click_on_a_doubtful_slice_goes_there(driver, result):
    import slicer

    from HSAMSegmentLib.slicer.nodes.volumes import ijk_to_world

    driver.tab.show_parameters(driver.node)
    assert driver.cells(driver.ui.doubtTable, 0) == ["9", "4"]
    view = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    for row, ijk in enumerate([(20, 30, 9), (21, 31, 4)]):
        driver.ui.doubtTable.cellClicked.emit(row, 0)
        assert view.GetSliceOffset() == pytest.approx(ijk_to_world(result[0], ijk)[2])


def test_a_drawn_segmentation_offers_no_correction_of_a_model(driver, pair):
    driver.choose(*pair)
    assert not driver.ui.correctSection.visible


def test_without_a_segment_editor_the_click_says_so(driver, result):
    driver.tab.show_parameters(driver.node)
    driver.click(driver.ui.correctButton)
    assert "no Segment Editor" in driver.status


def test_the_segment_editor_gets_the_segmentation_and_its_scan(driver, result, monkeypatch):
    import types

    import slicer

    taken = {}
    editor = types.SimpleNamespace(
        setSegmentationNode=lambda node: taken.update(segmentation=node),
        setSourceVolumeNode=lambda node: taken.update(scan=node),
    )
    module = types.SimpleNamespace(
        widgetRepresentation=lambda: types.SimpleNamespace(self=lambda: types.SimpleNamespace(editor=editor))
    )
    monkeypatch.setattr(slicer.modules, "segmenteditor", module, raising=False)
    monkeypatch.setattr(slicer.util, "selectModule", lambda name: taken.update(module=name))
    driver.tab.show_parameters(driver.node)
    driver.click(driver.ui.correctButton)
    assert taken == {"module": "SegmentEditor", "segmentation": result[1], "scan": result[0]}
