from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
from panel_driver import PanelDriver, only_segmentation, segment_names
from untrained_model import write_untrained_model

pytestmark = pytest.mark.host
pytest_plugins = ("panel_fixtures",)


@pytest.fixture
def scan(ct_scan):
    return ct_scan


def add_small_noise():
    """A scan of less than a liter, in which no organ of a liter can be."""
    import slicer

    array = np.random.default_rng(0).normal(50, 100, (12, 48, 48)).astype(np.int16)
    return slicer.util.addVolumeFromArray(array, np.diag([-3.0, -3.0, 3.0, 1.0]), "Noise")


def test_the_only_scan_and_model_are_chosen_and_the_button_is_on(driver, scan):
    assert driver.ui.scanSelector.currentNode() is scan
    assert driver.panel.model.id == "tiny"
    assert driver.ui.applyButton.enabled
    assert "CT · 2 organs · on this computer" in driver.ui.modelInfoLabel.text
    assert driver.status == ""


def test_a_click_segments_the_organs_and_shows_them(driver, scan):
    driver.segment()
    assert "2 of 2 organs found" in driver.status
    node = only_segmentation()
    assert segment_names(node) == ["Liver", "Right kidney"]
    assert node.GetSegmentation().ContainsRepresentation("Closed surface")
    assert driver.ui.outputSelector.currentNode() is None, "the next run goes into a new segmentation again"
    table = driver.ui.resultTable
    assert [table.item(row, 0).text() for row in range(table.rowCount)] == ["Liver", "Right kidney"]
    assert table.item(0, 1).text().endswith(" mL")
    assert driver.ui.applyButton.text == "Segment organs"


def test_a_row_leads_to_the_organ_and_its_last_column_to_the_least_certain_slice(driver, scan):
    import slicer

    from HSAMSegmentLib.slicer.nodes.volumes import ijk_to_world

    driver.segment()
    view = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    organ = driver.panel.result._written.outcome.organs[1]
    driver.ui.resultTable.cellClicked.emit(1, 0)
    assert view.GetSliceOffset() == pytest.approx(ijk_to_world(scan, organ.center_ijk)[2])
    driver.ui.resultTable.cellClicked.emit(1, 3)
    assert view.GetSliceOffset() == pytest.approx(ijk_to_world(scan, organ.uncertain_ijk)[2])


def test_only_the_checked_organs_are_written(driver):
    driver.uncheck(0)
    driver.segment()
    assert segment_names(only_segmentation()) == ["Right kidney"]


def test_without_organs_the_button_is_off_and_says_why(driver):
    driver.click(driver.ui.noOrgansButton)
    assert not driver.ui.applyButton.enabled
    assert driver.status == driver.ui.applyButton.toolTip == "Check at least one organ."
    driver.click(driver.ui.allOrgansButton)
    assert driver.ui.applyButton.enabled
    assert driver.status == ""


def test_without_a_scan_the_button_is_off_and_says_why(driver, scene, scan):
    scene.RemoveNode(scan)
    assert not driver.ui.applyButton.enabled
    assert "Choose a scan" in driver.status


def test_a_region_off_the_scan_is_said_before_the_click(driver, scene):
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Far away")
    roi.SetCenter(5000, 5000, 5000)
    roi.SetSize(10, 10, 10)
    driver.ui.regionSelector.setCurrentNode(roi)
    assert not driver.ui.applyButton.enabled
    assert "does not touch the scan" in driver.status


def test_a_region_limits_the_result(driver, scene, scan):
    import slicer

    from HSAMSegmentLib.slicer.nodes.volumes import ijk_to_world

    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region")
    roi.SetCenter(ijk_to_world(scan, (60, 50, 15)))
    roi.SetSize(60, 60, 30)
    driver.ui.regionSelector.setCurrentNode(roi)
    driver.segment()
    node = only_segmentation()
    masks = [
        slicer.util.arrayFromSegmentBinaryLabelmap(node, identifier, scan)
        for identifier in node.GetSegmentation().GetSegmentIDs()
    ]
    found = np.argwhere(np.any(masks, axis=0))
    assert found.min(axis=0).tolist() >= [10, 40, 50]
    assert found.max(axis=0).tolist() <= [20, 60, 70]


def test_a_second_click_cancels_and_leaves_the_scene_as_it_was(driver, scene, scan):
    import slicer

    big = slicer.util.addVolumeFromArray(np.zeros((400, 256, 256), np.int16), None, "Big")
    driver.ui.scanSelector.setCurrentNode(big)
    nodes = scene.GetNumberOfNodes()
    driver.click(driver.ui.applyButton)
    assert driver.ui.applyButton.text == "Cancel"
    driver.click(driver.ui.applyButton)
    driver.wait(seconds=10.0)
    assert driver.status == "Cancelled. Nothing in the scene changed."
    assert scene.GetNumberOfNodes() == nodes
    assert driver.ui.applyButton.text == "Segment organs"
    assert driver.ui.applyButton.enabled


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="uses POSIX signals")
def test_a_killed_worker_is_said_in_a_sentence_and_the_next_click_works(driver, scene):
    import slicer

    small = driver.ui.scanSelector.currentNode()
    big = slicer.util.addVolumeFromArray(np.zeros((400, 256, 256), np.int16), None, "Big")
    driver.segment()
    driver.ui.scanSelector.setCurrentNode(big)
    driver.click(driver.ui.applyButton)
    driver.wait(lambda: "Segmenting" in driver.ui.progressBar.text or "Loading" in driver.ui.progressBar.text)
    os.kill(driver.engine._session._runner.worker_pid, signal.SIGKILL)
    driver.wait()
    assert "out of memory" in driver.status
    driver.click(driver.ui.copyDetailsButton)
    assert "WorkerDied" in driver.answers.clipboard
    driver.ui.scanSelector.setCurrentNode(small)
    driver.segment()
    assert "organs found" in driver.status


def test_choosing_a_segmentation_replaces_and_undo_brings_the_old_one_back(driver, scan):
    import slicer

    driver.segment()
    node = only_segmentation()
    driver.ui.outputSelector.setCurrentNode(node)
    before = slicer.util.arrayFromSegmentBinaryLabelmap(node, "liver", scan).copy()
    node.GetSegmentation().GetSegment("liver").SetName("My liver")
    slicer.util.updateSegmentBinaryLabelmapFromArray(np.zeros_like(before), node, "liver", scan)
    driver.segment()
    assert only_segmentation() is node
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(node, "liver", scan), before)
    driver.click(driver.ui.undoButton)
    assert not slicer.util.arrayFromSegmentBinaryLabelmap(node, "liver", scan).any()
    assert "My liver" in segment_names(node)


def test_undo_of_a_new_segmentation_removes_it(driver, scene):
    driver.segment()
    driver.click(driver.ui.undoButton)
    assert scene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None


def test_a_scan_removed_meanwhile_keeps_its_result_in_a_new_node_with_a_word(driver, scene, scan):
    driver.click(driver.ui.applyButton)
    scene.RemoveNode(scan)
    driver.wait()
    assert "removed while it was segmented" in driver.ui.warningLabel.text
    assert segment_names(only_segmentation()) == ["Liver", "Right kidney"]


def test_a_scan_changed_meanwhile_gets_no_result_on_its_new_grid(driver, scan):
    driver.click(driver.ui.applyButton)
    scan.SetSpacing(1.0, 1.0, 1.0)
    driver.wait()
    assert "changed while it was segmented" in driver.ui.warningLabel.text
    image = only_segmentation().GetSegmentation().GetSegment("liver").GetRepresentation("Binary labelmap")
    assert image.GetSpacing() == pytest.approx((3.0, 3.0, 3.0))


def test_finished_slices_are_shown_while_the_job_runs_if_asked_for(driver, scan):
    import slicer

    from HSAMSegmentLib.slicer.nodes.live_preview import NODE_NAME

    slicer.app.layoutManager().sliceWidget("Red")
    (composite,) = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    driver.ui.previewBox.checked = True
    driver.click(driver.ui.applyButton)
    driver.wait(lambda: composite.GetLabelVolumeID() is not None)
    preview = slicer.mrmlScene.GetNodeByID(composite.GetLabelVolumeID())
    assert preview.GetName() == NODE_NAME
    assert slicer.util.arrayFromVolume(preview).any()
    assert driver.ui.scanSelector.currentNode() is scan
    driver.wait()
    assert composite.GetLabelVolumeID() is None
    assert not slicer.util.getNodes(NODE_NAME)


def test_the_report_can_be_saved(driver, tmp_path):
    driver.segment()
    driver.answers.path = str(tmp_path / "report.json")
    driver.panel.result.actions.trigger("report")
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert "Right kidney" in text
    assert json.loads(text)
    assert "saved" in driver.status


def test_a_report_that_cannot_be_saved_is_said_in_a_sentence(driver, tmp_path):
    driver.segment()
    (tmp_path / "report.json").mkdir()
    driver.answers.path = str(tmp_path / "report.json")
    driver.panel.result.actions.trigger("report")
    assert "report.json" in driver.status
    assert driver.ui.copyDetailsButton.visible


def test_nothing_found_says_why_that_may_be(driver):
    driver.ui.minimumBox.value = 1000.0
    driver.ui.largestPieceBox.checked = True
    driver.ui.scanSelector.setCurrentNode(add_small_noise())
    driver.segment()
    assert "Nothing was found" in driver.status
    assert "modality" in driver.status
    table = driver.ui.resultTable
    assert [table.item(row, 2).text() for row in range(table.rowCount)] == ["\u2013 not found"] * 2
    assert driver.ui.warningLabel.text


def test_settings_come_back_with_the_scene(host, driver, engine, store, tmp_path):
    import slicer

    driver.ui.minimumBox.value = 0.5
    driver.uncheck(0)
    assert host.save_scene(tmp_path / "scene.mrb")
    driver.close()
    assert host.load_scene(tmp_path / "scene.mrb")
    restored = PanelDriver(host, engine, store, slicer.util.getNode("HSAMSegment"))
    assert restored.ui.minimumBox.value == 0.5
    assert restored.panel.organs.checked == ("Right kidney",)
    restored.close()


def test_nothing_is_downloaded_without_a_yes(driver, scan, tmp_path):
    from HSAMSegmentLib.slicer.panels.widgets.model_list import StoreModels
    from HSAMSegmentLib.weights.store import Store

    driver.panel._models = StoreModels(Store(tmp_path))
    driver.panel.show_parameters(driver.node)
    known = [choice.id for choice in driver.panel._choices]
    driver.ui.modelCombo.setCurrentIndex(known.index("hsam_synapse_10"))
    assert "will be downloaded" in driver.ui.modelInfoLabel.text
    driver.answers.agrees = False
    driver.click(driver.ui.applyButton)
    assert not driver.engine.is_busy
    assert "MB" in driver.answers.questions[-1]
    assert "Terms" in driver.answers.questions[-1]


def test_a_file_that_is_no_model_is_refused_in_a_sentence(driver, tmp_path):
    (tmp_path / "notes.pth").write_text("no weights")
    driver.answers.path = str(tmp_path / "notes.pth")
    driver.click(driver.ui.importModelButton)
    driver.wait()
    assert "notes.pth" in driver.status
    assert driver.ui.copyDetailsButton.visible


def test_an_imported_model_is_chosen(driver, tmp_path):
    driver.answers.path = str(write_untrained_model(tmp_path / "other.safetensors", "other", title="Another one"))
    driver.click(driver.ui.importModelButton)
    driver.wait()
    assert driver.panel.model.id == "other"
    assert driver.ui.applyButton.enabled


def test_a_model_whose_encoder_nobody_knows_is_not_offered_as_present(host, engine, scan, tmp_path):
    from small_models import write_bundle

    from HSAMSegmentLib.weights.catalog import Catalog
    from HSAMSegmentLib.weights.manifest import EncoderSource
    from HSAMSegmentLib.weights.store import Store

    folder = tmp_path / "home" / "models"
    folder.mkdir(parents=True)
    write_bundle(folder, "a-orphan", encoder_source=EncoderSource(included=False, model_id="gone"))
    write_bundle(folder, "b-whole")
    store = Store(tmp_path / "home", catalog=Catalog(()), builtin=tmp_path / "none")
    driver = PanelDriver(host, engine, store)
    assert [choice.id for choice in driver.panel._choices] == ["b-whole", "a-orphan"]
    assert driver.ui.applyButton.enabled
    driver.ui.modelCombo.setCurrentIndex(1)
    assert "on this computer" not in driver.ui.modelInfoLabel.text
    assert not driver.ui.applyButton.enabled
    assert "needs the encoder 'gone', which is unknown here" in driver.status
    driver.close()
