"""While a job runs, nodes go, scenes come and the module is reloaded: it all ends well, and with a word."""

from __future__ import annotations

import numpy as np
import pytest
from panel_driver import only_segmentation, segment_names

pytestmark = pytest.mark.host
pytest_plugins = ("panel_fixtures",)


def _notes(driver):
    return driver.ui.warningLabel.text


def test_the_chosen_segmentation_removed_meanwhile_gets_a_new_one_with_a_word(driver, scene):
    driver.segment()
    chosen = only_segmentation()
    driver.ui.outputSelector.setCurrentNode(chosen)
    driver.click(driver.ui.applyButton)
    scene.RemoveNode(chosen)
    driver.wait()
    assert segment_names(only_segmentation()) == ["Liver", "Right kidney"]
    assert "is gone or was moved" in _notes(driver)


def test_the_chosen_segmentation_moved_meanwhile_is_left_as_it_was(driver, scene):
    driver.segment()
    chosen = only_segmentation()
    driver.ui.outputSelector.setCurrentNode(chosen)
    chosen.GetSegmentation().GetSegment("liver").SetName("Leber")
    driver.click(driver.ui.applyButton)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    chosen.SetAndObserveTransformNodeID(transform.GetID())
    driver.wait()
    assert segment_names(chosen) == ["Leber", "Right kidney"]
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 2
    assert "is gone or was moved" in _notes(driver)


def test_voxels_changed_meanwhile_on_the_same_grid_are_told(driver, ct_scan):
    import slicer

    driver.click(driver.ui.applyButton)
    driver.wait(lambda: driver.ui.progressBar.text not in ("", "Handing over the scan"))
    slicer.util.updateVolumeFromArray(ct_scan, np.zeros_like(slicer.util.arrayFromVolume(ct_scan)))
    driver.wait()
    assert segment_names(only_segmentation()) == ["Liver", "Right kidney"]
    assert "voxels were changed while it was segmented" in _notes(driver)


def test_a_scan_that_nobody_touched_has_no_such_word(driver):
    driver.segment()
    assert "changed" not in _notes(driver)


def test_the_region_and_the_settings_removed_meanwhile_change_nothing(driver, scene):
    region = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region")
    bounds = np.zeros(6)
    driver.ui.scanSelector.currentNode().GetRASBounds(bounds)
    region.SetCenter(*bounds.reshape(3, 2).mean(axis=1))
    region.SetSize(*np.ptp(bounds.reshape(3, 2), axis=1))
    driver.ui.regionSelector.setCurrentNode(region)
    driver.click(driver.ui.applyButton)
    scene.RemoveNode(region)
    scene.RemoveNode(driver.node)
    driver.wait()
    assert segment_names(only_segmentation()) == ["Liver", "Right kidney"]


def test_undo_of_a_segmentation_that_was_removed_meanwhile_does_nothing(driver, scene):
    driver.segment()
    scene.RemoveNode(only_segmentation())
    driver.click(driver.ui.undoButton)
    assert scene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None
    driver.segment()
    assert segment_names(only_segmentation()) == ["Liver", "Right kidney"]


def test_undo_while_the_next_job_runs_takes_back_the_earlier_result_only(driver, scene):
    driver.segment()
    earlier = only_segmentation()
    driver.click(driver.ui.applyButton)
    driver.engine.history.undo()
    assert earlier.GetScene() is None
    driver.wait()
    assert segment_names(only_segmentation()) == ["Liver", "Right kidney"]


def test_a_scene_closed_while_a_job_runs_gets_nothing_of_it_and_the_next_scene_works(driver, scene, data_folder):
    import slicer

    driver.click(driver.ui.applyButton)
    driver.panel.leave_scene()  # what the module's widget does when the scene is about to be closed
    scene.Clear(0)
    driver.wait()
    assert scene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None
    path = data_folder / "ct_totalsegmentator" / "images" / "ct_example_30.nii.gz"
    again = slicer.util.loadVolume(str(path), {})
    driver.panel.show_parameters(scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "HSAMSegment"))
    driver.ui.scanSelector.setCurrentNode(again)
    driver.segment()
    assert segment_names(only_segmentation()) == ["Liver", "Right kidney"]


@pytest.mark.parametrize(
    ("kind", "shape", "words"),
    [
        ("vtkMRMLLabelMapVolumeNode", (4, 5, 6), "is a label map"),
        ("vtkMRMLVectorVolumeNode", (4, 5, 6, 3), "3 values per voxel"),
    ],
)
def test_a_volume_that_is_no_scan_turns_the_button_off_with_a_sentence(driver, kind, shape, words):
    import slicer

    node = slicer.util.addVolumeFromArray(np.zeros(shape, np.int16), nodeClassName=kind)
    driver.ui.scanSelector.setCurrentNode(node)
    assert not driver.ui.applyButton.enabled
    assert words in driver.status
    assert words in driver.ui.applyButton.toolTip


def test_a_second_panel_of_the_same_engine_waits_for_the_first(driver, host, engine, store):
    from panel_driver import PanelDriver

    other = PanelDriver(host, engine, store, driver.node)
    driver.click(driver.ui.applyButton)
    other.panel.refresh_button()
    assert not other.ui.applyButton.enabled
    assert "Another job is running" in other.status
    driver.wait()
    other.panel.refresh_button()
    assert other.ui.applyButton.enabled
    other.close()
