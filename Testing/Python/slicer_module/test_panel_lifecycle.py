"""While a job runs, nodes go, scenes come and the module is reloaded: it all ends well, and with a word."""

from __future__ import annotations

import numpy as np
import pytest
from panel_stand import only_segmentation, segment_names

pytestmark = pytest.mark.host
pytest_plugins = ("panel_fixtures",)


def _notes(stand):
    return stand.ui.warningLabel.text


def test_the_chosen_segmentation_removed_meanwhile_gets_a_new_one_with_a_word(stand, scene):
    stand.segment()
    chosen = only_segmentation()
    stand.ui.outputSelector.setCurrentNode(chosen)
    stand.click(stand.ui.applyButton)
    scene.RemoveNode(chosen)
    stand.wait()
    assert segment_names(only_segmentation()) == ["Liver", "Right kidney"]
    assert "is gone or was moved" in _notes(stand)


def test_the_chosen_segmentation_moved_meanwhile_is_left_as_it_was(stand, scene):
    stand.segment()
    chosen = only_segmentation()
    stand.ui.outputSelector.setCurrentNode(chosen)
    chosen.GetSegmentation().GetSegment("liver").SetName("Leber")
    stand.click(stand.ui.applyButton)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    chosen.SetAndObserveTransformNodeID(transform.GetID())
    stand.wait()
    assert segment_names(chosen) == ["Leber", "Right kidney"]
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 2
    assert "is gone or was moved" in _notes(stand)


def test_voxels_changed_meanwhile_on_the_same_grid_are_told(stand, ct_scan):
    import slicer

    stand.click(stand.ui.applyButton)
    stand.wait(lambda: stand.ui.progressBar.text not in ("", "Handing over the scan"))
    slicer.util.updateVolumeFromArray(ct_scan, np.zeros_like(slicer.util.arrayFromVolume(ct_scan)))
    stand.wait()
    assert segment_names(only_segmentation()) == ["Liver", "Right kidney"]
    assert "voxels were changed while it was segmented" in _notes(stand)


def test_a_scan_that_nobody_touched_has_no_such_word(stand):
    stand.segment()
    assert "changed" not in _notes(stand)


def test_the_region_and_the_settings_removed_meanwhile_change_nothing(stand, scene):
    region = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region")
    bounds = np.zeros(6)
    stand.ui.scanSelector.currentNode().GetRASBounds(bounds)
    region.SetCenter(*bounds.reshape(3, 2).mean(axis=1))
    region.SetSize(*np.ptp(bounds.reshape(3, 2), axis=1))
    stand.ui.regionSelector.setCurrentNode(region)
    stand.click(stand.ui.applyButton)
    scene.RemoveNode(region)
    scene.RemoveNode(stand.node)
    stand.wait()
    assert segment_names(only_segmentation()) == ["Liver", "Right kidney"]


def test_undo_of_a_segmentation_that_was_removed_meanwhile_does_nothing(stand, scene):
    stand.segment()
    scene.RemoveNode(only_segmentation())
    stand.click(stand.ui.undoButton)
    assert scene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None
    stand.segment()
    assert segment_names(only_segmentation()) == ["Liver", "Right kidney"]


def test_undo_while_the_next_job_runs_takes_back_the_earlier_result_only(stand, scene):
    stand.segment()
    earlier = only_segmentation()
    stand.click(stand.ui.applyButton)
    stand.engine.history.undo()
    assert earlier.GetScene() is None
    stand.wait()
    assert segment_names(only_segmentation()) == ["Liver", "Right kidney"]


def test_a_scene_closed_while_a_job_runs_gets_nothing_of_it_and_the_next_scene_works(stand, scene, data_folder):
    import slicer

    stand.click(stand.ui.applyButton)
    stand.panel.leave_scene()  # what the module's widget does when the scene is about to be closed
    scene.Clear(0)
    stand.wait()
    assert scene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None
    path = data_folder / "ct_totalsegmentator" / "images" / "ct_example_30.nii.gz"
    again = slicer.util.loadVolume(str(path), {})
    stand.panel.show_parameters(scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "HSAMSegment"))
    stand.ui.scanSelector.setCurrentNode(again)
    stand.segment()
    assert segment_names(only_segmentation()) == ["Liver", "Right kidney"]


@pytest.mark.parametrize(
    ("kind", "shape", "words"),
    [
        ("vtkMRMLLabelMapVolumeNode", (4, 5, 6), "is a label map"),
        ("vtkMRMLVectorVolumeNode", (4, 5, 6, 3), "3 values per voxel"),
    ],
)
def test_a_volume_that_is_no_scan_turns_the_button_off_with_a_sentence(stand, kind, shape, words):
    import slicer

    node = slicer.util.addVolumeFromArray(np.zeros(shape, np.int16), nodeClassName=kind)
    stand.ui.scanSelector.setCurrentNode(node)
    assert not stand.ui.applyButton.enabled
    assert words in stand.status
    assert words in stand.ui.applyButton.toolTip


def test_a_second_panel_of_the_same_engine_waits_for_the_first(stand, host, engine, store):
    from panel_stand import PanelStand

    other = PanelStand(host, engine, store, stand.node)
    stand.click(stand.ui.applyButton)
    other.panel.refresh_button()
    assert not other.ui.applyButton.enabled
    assert "Another job is running" in other.status
    stand.wait()
    other.panel.refresh_button()
    assert other.ui.applyButton.enabled
    other.close()
