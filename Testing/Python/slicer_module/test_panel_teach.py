"""The Teach tab, driven by clicks in the host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from small_cases import ABDOMEN_NAMES, small_volume
from teach_panel_stand import TeachStand, add_segmentation, add_volume, small_labels

pytestmark = pytest.mark.host
SMALL_NAMES = {1: ABDOMEN_NAMES[1], 2: ABDOMEN_NAMES[2]}


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
    return node, add_segmentation(node, labels, SMALL_NAMES)


def test_an_empty_tab_says_what_to_do_first(stand):
    assert not stand.ui.startButton.enabled
    assert "Add at least one scan" in stand.status
    assert not stand.ui.addPairButton.enabled
    assert not stand.ui.pauseButton.enabled
    assert not stand.ui.stopButton.enabled


def test_one_click_adds_the_pair_and_its_row_says_what_is_in_it(stand, pair):
    stand.add(*pair)
    assert stand.cells(stand.ui.caseTable, 0) == ["chaos_t2_02"]
    assert stand.cells(stand.ui.caseTable, 1) == ["liver, right kidney"]
    labelled = int((small_labels(pair) > 0).any(axis=(1, 2)).sum())
    assert stand.cells(stand.ui.caseTable, 2) == [f"{labelled} of 14"]
    assert stand.cells(stand.ui.teachOrganTable, 0) == ["liver", "right kidney"]
    assert stand.ui.startButton.enabled
    assert stand.status == ""


def test_the_same_pair_again_is_one_row(stand, pair):
    stand.add(*pair)
    stand.add(*pair)
    assert stand.ui.caseTable.rowCount == 1


def test_what_a_teaching_needs_and_starts_from_is_said_before_the_start(stand, pair):
    stand.add(*pair)
    text = stand.ui.estimateLabel.text
    assert "Starts from" in text
    assert "abdomen" in text.lower()
    assert "of memory" in text
    assert "of disk" in text
    assert "5 min" in text


def test_the_tab_opens_and_says_what_it_needs_before_the_packages_of_the_worker_are_installed(
    host, scene, store, pair, monkeypatch
):
    monkeypatch.setitem(sys.modules, "psutil", None)
    course = store.folder / "teaching" / "course-from-another-slicer"
    course.mkdir(parents=True)
    (course / "running.json").write_text('{"pid": 1, "started": 0.0}')
    stand = TeachStand(host, store)
    stand.add(*pair)
    assert "of memory, " in stand.ui.estimateLabel.text
    assert stand.ui.startButton.enabled
    stand.close()


def test_opening_the_tab_imports_nothing_that_slicer_does_not_have():
    script = (
        "import sys; import HSAMSegmentLib.workflows.finetune.training_run, "
        ""
        "HSAMSegmentLib.workflows.finetune.cost_estimate, "
        "HSAMSegmentLib.workflows.finetune.inspect_cases, HSAMSegmentLib.workflows.finetune.model_summary, "
        "HSAMSegmentLib.report.correction_slices; "
        "found = {'torch', 'monai', 'psutil', 'scipy', 'matplotlib', 'segment_anything'} & set(sys.modules); "
        "sys.exit(', '.join(found) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_scratch_folder_that_is_too_full_is_said_before_the_start(stand, pair, monkeypatch):
    import collections

    from HSAMSegmentLib.workflows.finetune import cost_estimate as teach_estimate

    usage = collections.namedtuple("usage", "total used free")(10, 9, 1)
    monkeypatch.setattr(teach_estimate.shutil, "disk_usage", lambda folder: usage)
    stand.add(*pair)
    assert not stand.ui.startButton.enabled
    assert "Free some space" in stand.status


def test_a_scratch_folder_that_cannot_be_written_is_said_and_nothing_starts(stand, pair, tmp_path):
    (tmp_path / "a-file").write_text("")
    stand.add(*pair)
    stand.ui.scratchEdit.setCurrentPath(str(tmp_path / "a-file"))
    stand.click(stand.ui.startButton)
    assert "a-file is a file" in stand.status
    assert not stand.part.run.is_busy
    assert stand.ui.startButton.enabled


@pytest.mark.skipif(os.name == "nt", reason="/dev/full is a thing of Linux")
def test_a_disk_that_gets_full_while_the_scan_is_copied_is_said_and_leaves_nothing(stand, pair, monkeypatch):
    from HSAMSegmentLib.slicer.nodes.finetune import cases as teaching_cases
    from HSAMSegmentLib.worker.array_export import ArrayExport

    monkeypatch.setattr(teaching_cases, "ArrayExport", lambda array, file: ArrayExport(array, Path("/dev/full")))
    stand.add(*pair)
    stand.click(stand.ui.startButton)
    stand.wait_for_end()
    assert "The disk is full" in stand.status
    assert list(stand.part.scratch_folder.glob("course-*")) == []
    assert not stand.ui.unfinishedBox.visible


def test_a_row_that_cannot_be_used_says_why_and_the_start_is_off(stand, scene, pair):
    stand.add(*pair)
    scene.RemoveNode(pair[0])
    stand.part.show_parameters(stand.node)
    assert stand.ui.caseTable.rowCount == 0, "a pair that is gone is no row of the next scene"
    volume = add_volume_like_nothing()
    empty = add_segmentation(volume, np.zeros((4, 8, 8), np.uint8), {1: "liver"}, "Empty")
    stand.add(volume, empty)
    assert "no labelled voxel" in stand.cells(stand.ui.caseTable, 1)[0]
    assert not stand.ui.startButton.enabled
    assert "no labelled voxel" in stand.status
    stand.click(stand.ui.removeCaseButton)
    assert stand.ui.caseTable.rowCount == 0


def add_volume_like_nothing():
    import slicer

    return slicer.util.addVolumeFromArray(np.zeros((4, 8, 8), np.int16), None, "Nothing")


def test_an_organ_without_its_check_mark_is_not_learned(stand, pair):
    import qt

    stand.add(*pair)
    for row in range(2):
        stand.ui.teachOrganTable.item(row, 0).setCheckState(qt.Qt.Unchecked)
        assert stand.part.organs.learned == (("right kidney",) if row == 0 else ())
    assert not stand.ui.startButton.enabled
    assert "Check at least one organ" in stand.status


def test_two_names_of_one_organ_are_joined_and_others_can_be(stand, pair, data_folder):
    volume, labels = small_volume(data_folder, "chaos_t2_03")
    other = add_volume(volume)
    stand.add(*pair)
    stand.add(other, add_segmentation(other, labels, {1: "Liver", 2: "my kidney"}, "Other"))
    assert stand.cells(stand.ui.teachOrganTable, 2) == ["liver", "right kidney", "liver", "my kidney"]
    assert stand.part.organs.learned == ("liver", "right kidney", "my kidney")
    stand.ui.teachOrganTable.item(3, 2).setText("right kidney")
    assert stand.part.organs.learned == ("liver", "right kidney")


def test_cases_and_choices_are_saved_with_the_scene_and_restored(stand, host, store, pair):
    import qt

    stand.add(*pair)
    stand.ui.teachOrganTable.item(0, 0).setCheckState(qt.Qt.Unchecked)
    stand.ui.minutesBox.value = 2.5
    stand.ui.titleEdit.setText("Kidney")
    stand.ui.titleEdit.editingFinished.emit()
    again = TeachStand(host, store, node=stand.node)
    assert again.cells(again.ui.caseTable, 0) == ["chaos_t2_02"]
    assert again.part.organs.learned == ("right kidney",)
    assert again.ui.minutesBox.value == 2.5
    assert again.ui.titleEdit.text == "Kidney"
    again.close()


def test_settings_of_another_version_are_no_error(stand):
    stand.node.SetParameter("TeachSettings", json.dumps({"minutes": 3.0, "invented": 1, "files": []}))
    stand.part.show_parameters(stand.node)
    assert stand.ui.minutesBox.value == 3.0
    stand.node.SetParameter("TeachSettings", "no json")
    stand.part.show_parameters(stand.node)
    assert stand.ui.minutesBox.value == 5.0


def test_nothing_in_the_scene_is_changed_by_looking(stand, pair):
    times = [node.GetMTime() for node in pair]
    parts = pair[1].GetSegmentation().GetMTime()
    stand.add(*pair)
    assert [node.GetMTime() for node in pair] == times
    assert pair[1].GetSegmentation().GetMTime() == parts


def test_the_chart_comes_into_sight_with_the_first_numbers_unless_it_is_not_wanted(stand):
    import slicer

    from HSAMSegmentLib.labels.terminology import label_set_of
    from HSAMSegmentLib.workflows.events import Metrics

    live, numbers = stand.part.live, Metrics(0, {"seconds": 1.0, "best": 1.0, "dice/liver": 0.5})
    selection = slicer.app.applicationLogic().GetSelectionNode()
    live.begin("First", label_set_of({1: "liver"}))
    live.add(numbers)
    first = live.chart.chart_node.GetID()
    assert selection.GetActivePlotChartID() == first
    stand.ui.liveChartBox.checked = False
    live.begin("Second", label_set_of({1: "liver"}))
    live.add(numbers)
    assert selection.GetActivePlotChartID() == first
    stand.click(stand.ui.chartButton)
    assert selection.GetActivePlotChartID() == live.chart.chart_node.GetID()
    assert '"live_chart": false' in stand.node.GetParameter("TeachSettings"), "the choice is kept with the scene"


def test_a_model_that_is_no_better_than_its_start_is_said_to_be_no_better(stand):
    from HSAMSegmentLib.labels.terminology import label_set_of
    from HSAMSegmentLib.workflows.finetune.finetune_request import TaughtOutcome

    stand.part.live.begin("Liver", label_set_of({1: "liver"}))
    outcome = TaughtOutcome("liver", "Liver", {"liver": 0.7}, {"liver": 0.7}, "held-out slices of the same scan")
    stand.part.live.finish(outcome)
    assert "did not get better" in stand.ui.diceNoteLabel.text
    assert stand.cells(stand.ui.diceTable, 1) == stand.cells(stand.ui.diceTable, 2) == ["0.700"]


# --- the tabs beside it


def test_the_result_of_the_segment_tab_leads_here_and_a_taught_model_leads_back(host, scene, store, pair):
    from teach_panel_stand import FORMS
    from untrained_model import write_untrained_model

    from HSAMSegmentLib.slicer.nodes.segment_session import Written
    from HSAMSegmentLib.slicer.nodes.volumes import volume_geometry
    from HSAMSegmentLib.slicer.panels.engine import Engine
    from HSAMSegmentLib.slicer.panels.shell import Shell
    from HSAMSegmentLib.slicer.panels.tabs import SEGMENT, TEACH
    from HSAMSegmentLib.slicer.panels.widgets.model_list import StoreModels
    from HSAMSegmentLib.workflows.segment.outcome import SegmentOutcome

    engine = Engine()
    node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "HSAMSegment")
    shell = Shell(engine, lambda name: str(FORMS / name), lambda: node, models=StoreModels(store))
    segment = shell.open(SEGMENT)
    outcome = SegmentOutcome(volume_geometry(pair[0]), (0,) * 6, "", (), "abdomen-mr-t2", "Abdomen")
    segment.result.show(Written(outcome, pair[1], pair[0]), show_3d=False)
    segment.ui.learnFromButton.click()
    teach = shell.open(TEACH)
    assert shell.widget.currentIndex == 1
    assert teach.ui.teachScanSelector.currentNode() is pair[0]
    assert teach.ui.teachSegmentationSelector.currentNode() is pair[1]
    store.models_folder.mkdir(parents=True)
    write_untrained_model(store.models_folder / "tiny.safetensors", title="Taught a moment ago")
    shell.open(SEGMENT)
    assert segment.ui.modelCombo.findText("Taught a moment ago") >= 0
    shell.close()
    engine.close()


# --- what the user's own models offer


@pytest.fixture
def own_model(store):
    from untrained_model import write_untrained_model

    store.models_folder.mkdir(parents=True)
    return write_untrained_model(store.models_folder / "tiny.safetensors", title="My tiny model")


def transfer(stand, button):
    """Click and wait for the end of an import or export."""
    stand.click(button)
    stand.wait(lambda: not stand.part.models.is_busy, seconds=60.0)


def test_a_model_is_exported_to_one_file_deleted_after_a_question_and_imported_again(stand, own_model, tmp_path):
    stand.part.show_parameters(stand.node)
    assert stand.ui.myModelCombo.currentText == "My tiny model"
    assert "Finds: Liver, Right kidney" in stand.ui.cardLabel.text
    stand.answers.path = str(tmp_path / "shared.safetensors")
    transfer(stand, stand.ui.exportButton)
    assert "one file is all" in stand.status
    exported = (tmp_path / "shared.safetensors").read_bytes()
    assert exported == own_model.read_bytes()
    stand.answers.agrees = False
    stand.click(stand.ui.deleteButton)
    assert own_model.exists(), "the user said no"
    stand.answers.agrees = True
    stand.click(stand.ui.deleteButton)
    assert not own_model.exists()
    assert "cannot be undone" in stand.answers.questions[-1]
    assert not stand.ui.exportButton.enabled
    transfer(stand, stand.ui.importButton)
    assert stand.ui.myModelCombo.currentText == "My tiny model"
    assert "'My tiny model' was imported" in stand.status
    assert own_model.read_bytes() == exported


def test_a_file_that_is_no_model_is_refused_with_a_sentence(stand, tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"nothing of use")
    stand.answers.path = str(tmp_path / "broken.safetensors")
    transfer(stand, stand.ui.importButton)
    assert "broken.safetensors" in stand.status
    assert stand.ui.teachCopyButton.visible


def test_a_model_that_cannot_be_exported_there_is_said(stand, own_model, tmp_path):
    stand.part.show_parameters(stand.node)
    (tmp_path / "a-file").write_text("")
    stand.answers.path = str(tmp_path / "a-file" / "model.safetensors")
    transfer(stand, stand.ui.exportButton)
    assert "a-file is a file" in stand.status
    assert own_model.exists()


# --- correct and learn


@pytest.fixture
def result(scene, pair):
    """A segmentation as a model leaves it."""
    from HSAMSegmentLib.report.correction_slices import DoubtfulSlice
    from HSAMSegmentLib.slicer.nodes.segmentations.segments import DOUBTS_ATTRIBUTE, MODEL_ATTRIBUTE, SOURCE_ROLE

    doubts = [DoubtfulSlice(9, (20, 30, 9), "liver", 0.41, 80.0), DoubtfulSlice(4, (21, 31, 4), "liver", 0.6, 40.0)]
    volume, node = pair
    node.SetAttribute(MODEL_ATTRIBUTE, "abdomen-mr-t2")
    node.SetAttribute(DOUBTS_ATTRIBUTE, json.dumps([asdict(item) for item in doubts]))
    node.SetNodeReferenceID(SOURCE_ROLE, volume.GetID())
    return volume, node


def test_the_newest_result_is_chosen_with_its_scan_and_says_who_made_it(stand, result):
    stand.part.show_parameters(stand.node)
    assert stand.ui.teachScanSelector.currentNode() is result[0]
    assert stand.ui.teachSegmentationSelector.currentNode() is result[1]
    assert stand.ui.correctSection.visible
    assert "Abdomen, T2-weighted MR" in stand.ui.correctLabel.text


def test_a_click_on_a_doubtful_slice_goes_there(stand, result):
    import slicer

    from HSAMSegmentLib.slicer.nodes.volumes import ijk_to_world

    stand.part.show_parameters(stand.node)
    assert stand.cells(stand.ui.doubtTable, 0) == ["9", "4"]
    view = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    for row, ijk in enumerate([(20, 30, 9), (21, 31, 4)]):
        stand.ui.doubtTable.cellClicked.emit(row, 0)
        assert view.GetSliceOffset() == pytest.approx(ijk_to_world(result[0], ijk)[2])


def test_a_drawn_segmentation_offers_no_correction_of_a_model(stand, pair):
    stand.choose(*pair)
    assert not stand.ui.correctSection.visible


def test_without_a_segment_editor_the_click_says_so(stand, result):
    stand.part.show_parameters(stand.node)
    stand.click(stand.ui.correctButton)
    assert "no Segment Editor" in stand.status


def test_the_segment_editor_gets_the_segmentation_and_its_scan(stand, result, monkeypatch):
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
    stand.part.show_parameters(stand.node)
    stand.click(stand.ui.correctButton)
    assert taken == {"module": "SegmentEditor", "segmentation": result[1], "scan": result[0]}
