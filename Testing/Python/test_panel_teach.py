"""The Teach tab, driven by clicks in the host."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small_cases import ABDOMEN_NAMES, small_volume
from teach_panel_stand import TeachStand, add_segmentation, add_volume

pytestmark = pytest.mark.host
SMALL_NAMES = {1: ABDOMEN_NAMES[1], 2: ABDOMEN_NAMES[2]}


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store beside the models that come with the program; the worker finds it by the variable."""
    from HSAMSegmentLib.checkpoints.store import HOME_VARIABLE, Store

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


def small_labels(pair):
    import slicer

    volume, segmentation = pair
    merged = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    for identifier in segmentation.GetSegmentation().GetSegmentIDs():
        merged[slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, volume) > 0] = 1
    return merged


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


def test_a_scratch_folder_that_is_too_full_is_said_before_the_start(stand, pair, monkeypatch):
    import collections

    from HSAMSegmentLib.jobs import teach_estimate

    usage = collections.namedtuple("usage", "total used free")(10, 9, 1)
    monkeypatch.setattr(teach_estimate.shutil, "disk_usage", lambda folder: usage)
    stand.add(*pair)
    assert not stand.ui.startButton.enabled
    assert "Free some space" in stand.status


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
