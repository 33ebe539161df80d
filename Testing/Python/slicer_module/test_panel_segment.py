from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
from panel_stand import PanelStand, only_segmentation, segment_names
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


def test_the_only_scan_and_model_are_chosen_and_the_button_is_on(stand, scan):
    assert stand.ui.scanSelector.currentNode() is scan
    assert stand.panel.model.id == "tiny"
    assert stand.ui.applyButton.enabled
    assert "CT · 2 organs · on this computer" in stand.ui.modelInfoLabel.text
    assert stand.status == ""


def test_a_click_segments_the_organs_and_shows_them(stand, scan):
    stand.segment()
    assert "2 of 2 organs found" in stand.status
    node = only_segmentation()
    assert segment_names(node) == ["Liver", "Right kidney"]
    assert node.GetSegmentation().ContainsRepresentation("Closed surface")
    assert stand.ui.outputSelector.currentNode() is None, "the next run goes into a new segmentation again"
    table = stand.ui.resultTable
    assert [table.item(row, 0).text() for row in range(table.rowCount)] == ["Liver", "Right kidney"]
    assert table.item(0, 1).text().endswith(" mL")
    assert stand.ui.applyButton.text == "Segment organs"


def test_a_row_leads_to_the_organ_and_its_last_column_to_the_least_certain_slice(stand, scan):
    import slicer

    from HSAMSegmentLib.slicer.nodes.volumes import ijk_to_world

    stand.segment()
    view = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    organ = stand.panel.result._written.outcome.organs[1]
    stand.ui.resultTable.cellClicked.emit(1, 0)
    assert view.GetSliceOffset() == pytest.approx(ijk_to_world(scan, organ.center_ijk)[2])
    stand.ui.resultTable.cellClicked.emit(1, 3)
    assert view.GetSliceOffset() == pytest.approx(ijk_to_world(scan, organ.uncertain_ijk)[2])


def test_only_the_checked_organs_are_written(stand):
    stand.uncheck(0)
    stand.segment()
    assert segment_names(only_segmentation()) == ["Right kidney"]


def test_without_organs_the_button_is_off_and_says_why(stand):
    stand.click(stand.ui.noOrgansButton)
    assert not stand.ui.applyButton.enabled
    assert stand.status == stand.ui.applyButton.toolTip == "Check at least one organ."
    stand.click(stand.ui.allOrgansButton)
    assert stand.ui.applyButton.enabled
    assert stand.status == ""


def test_without_a_scan_the_button_is_off_and_says_why(stand, scene, scan):
    scene.RemoveNode(scan)
    assert not stand.ui.applyButton.enabled
    assert "Choose a scan" in stand.status


def test_a_region_off_the_scan_is_said_before_the_click(stand, scene):
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Far away")
    roi.SetCenter(5000, 5000, 5000)
    roi.SetSize(10, 10, 10)
    stand.ui.regionSelector.setCurrentNode(roi)
    assert not stand.ui.applyButton.enabled
    assert "does not touch the scan" in stand.status


def test_a_region_limits_the_result(stand, scene, scan):
    import slicer

    from HSAMSegmentLib.slicer.nodes.volumes import ijk_to_world

    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region")
    roi.SetCenter(ijk_to_world(scan, (60, 50, 15)))
    roi.SetSize(60, 60, 30)
    stand.ui.regionSelector.setCurrentNode(roi)
    stand.segment()
    node = only_segmentation()
    masks = [
        slicer.util.arrayFromSegmentBinaryLabelmap(node, identifier, scan)
        for identifier in node.GetSegmentation().GetSegmentIDs()
    ]
    found = np.argwhere(np.any(masks, axis=0))
    assert found.min(axis=0).tolist() >= [10, 40, 50]
    assert found.max(axis=0).tolist() <= [20, 60, 70]


def test_a_second_click_cancels_and_leaves_the_scene_as_it_was(stand, scene, scan):
    import slicer

    big = slicer.util.addVolumeFromArray(np.zeros((400, 256, 256), np.int16), None, "Big")
    stand.ui.scanSelector.setCurrentNode(big)
    nodes = scene.GetNumberOfNodes()
    stand.click(stand.ui.applyButton)
    assert stand.ui.applyButton.text == "Cancel"
    stand.click(stand.ui.applyButton)
    stand.wait(seconds=10.0)
    assert stand.status == "Cancelled. Nothing in the scene changed."
    assert scene.GetNumberOfNodes() == nodes
    assert stand.ui.applyButton.text == "Segment organs"
    assert stand.ui.applyButton.enabled


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="uses POSIX signals")
def test_a_killed_worker_is_said_in_a_sentence_and_the_next_click_works(stand, scene):
    import slicer

    small = stand.ui.scanSelector.currentNode()
    big = slicer.util.addVolumeFromArray(np.zeros((400, 256, 256), np.int16), None, "Big")
    stand.segment()
    stand.ui.scanSelector.setCurrentNode(big)
    stand.click(stand.ui.applyButton)
    stand.wait(lambda: "Segmenting" in stand.ui.progressBar.text or "Loading" in stand.ui.progressBar.text)
    os.kill(stand.engine._session._runner.worker_pid, signal.SIGKILL)
    stand.wait()
    assert "out of memory" in stand.status
    stand.click(stand.ui.copyDetailsButton)
    assert "WorkerDied" in stand.answers.clipboard
    stand.ui.scanSelector.setCurrentNode(small)
    stand.segment()
    assert "organs found" in stand.status


def test_choosing_a_segmentation_replaces_and_undo_brings_the_old_one_back(stand, scan):
    import slicer

    stand.segment()
    node = only_segmentation()
    stand.ui.outputSelector.setCurrentNode(node)
    before = slicer.util.arrayFromSegmentBinaryLabelmap(node, "liver", scan).copy()
    node.GetSegmentation().GetSegment("liver").SetName("My liver")
    slicer.util.updateSegmentBinaryLabelmapFromArray(np.zeros_like(before), node, "liver", scan)
    stand.segment()
    assert only_segmentation() is node
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(node, "liver", scan), before)
    stand.click(stand.ui.undoButton)
    assert not slicer.util.arrayFromSegmentBinaryLabelmap(node, "liver", scan).any()
    assert "My liver" in segment_names(node)


def test_undo_of_a_new_segmentation_removes_it(stand, scene):
    stand.segment()
    stand.click(stand.ui.undoButton)
    assert scene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None


def test_a_scan_removed_meanwhile_keeps_its_result_in_a_new_node_with_a_word(stand, scene, scan):
    stand.click(stand.ui.applyButton)
    scene.RemoveNode(scan)
    stand.wait()
    assert "removed while it was segmented" in stand.ui.warningLabel.text
    assert segment_names(only_segmentation()) == ["Liver", "Right kidney"]


def test_a_scan_changed_meanwhile_gets_no_result_on_its_new_grid(stand, scan):
    stand.click(stand.ui.applyButton)
    scan.SetSpacing(1.0, 1.0, 1.0)
    stand.wait()
    assert "changed while it was segmented" in stand.ui.warningLabel.text
    image = only_segmentation().GetSegmentation().GetSegment("liver").GetRepresentation("Binary labelmap")
    assert image.GetSpacing() == pytest.approx((3.0, 3.0, 3.0))


def test_finished_slices_are_shown_while_the_job_runs_if_asked_for(stand, scan):
    import slicer

    from HSAMSegmentLib.slicer.nodes.live_preview import NODE_NAME

    slicer.app.layoutManager().sliceWidget("Red")
    (composite,) = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    stand.ui.previewBox.checked = True
    stand.click(stand.ui.applyButton)
    stand.wait(lambda: composite.GetLabelVolumeID() is not None)
    preview = slicer.mrmlScene.GetNodeByID(composite.GetLabelVolumeID())
    assert preview.GetName() == NODE_NAME
    assert slicer.util.arrayFromVolume(preview).any()
    assert stand.ui.scanSelector.currentNode() is scan
    stand.wait()
    assert composite.GetLabelVolumeID() is None
    assert not slicer.util.getNodes(NODE_NAME)


def test_the_report_can_be_saved(stand, tmp_path):
    stand.segment()
    stand.answers.path = str(tmp_path / "report.json")
    stand.click(stand.ui.saveReportButton)
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert "Right kidney" in text
    assert json.loads(text)
    assert "saved" in stand.status


def test_a_report_that_cannot_be_saved_is_said_in_a_sentence(stand, tmp_path):
    stand.segment()
    (tmp_path / "report.json").mkdir()
    stand.answers.path = str(tmp_path / "report.json")
    stand.click(stand.ui.saveReportButton)
    assert "report.json" in stand.status
    assert stand.ui.copyDetailsButton.visible


def test_nothing_found_says_why_that_may_be(stand):
    stand.ui.minimumBox.value = 1000.0
    stand.ui.largestPieceBox.checked = True
    stand.ui.scanSelector.setCurrentNode(add_small_noise())
    stand.segment()
    assert "Nothing was found" in stand.status
    assert "modality" in stand.status
    table = stand.ui.resultTable
    assert [table.item(row, 1).text() for row in range(table.rowCount)] == ["not found", "not found"]
    assert stand.ui.warningLabel.text


def test_settings_come_back_with_the_scene(host, stand, engine, store, tmp_path):
    import slicer

    stand.ui.minimumBox.value = 0.5
    stand.uncheck(0)
    assert host.save_scene(tmp_path / "scene.mrb")
    stand.close()
    assert host.load_scene(tmp_path / "scene.mrb")
    restored = PanelStand(host, engine, store, slicer.util.getNode("HSAMSegment"))
    assert restored.ui.minimumBox.value == 0.5
    assert restored.panel.organs.checked == ("Right kidney",)
    restored.close()


def test_nothing_is_downloaded_without_a_yes(stand, scan, tmp_path):
    from HSAMSegmentLib.slicer.panels.widgets.model_list import StoreModels
    from HSAMSegmentLib.weights.store import Store

    stand.panel._models = StoreModels(Store(tmp_path))
    stand.panel.show_parameters(stand.node)
    known = [choice.id for choice in stand.panel._choices]
    stand.ui.modelCombo.setCurrentIndex(known.index("hsam_synapse_10"))
    assert "will be downloaded" in stand.ui.modelInfoLabel.text
    stand.answers.agrees = False
    stand.click(stand.ui.applyButton)
    assert not stand.engine.is_busy
    assert "MB" in stand.answers.questions[-1]
    assert "Terms" in stand.answers.questions[-1]


def test_a_file_that_is_no_model_is_refused_in_a_sentence(stand, tmp_path):
    (tmp_path / "notes.pth").write_text("no weights")
    stand.answers.path = str(tmp_path / "notes.pth")
    stand.click(stand.ui.importModelButton)
    stand.wait()
    assert "notes.pth" in stand.status
    assert stand.ui.copyDetailsButton.visible


def test_an_imported_model_is_chosen(stand, tmp_path):
    stand.answers.path = str(write_untrained_model(tmp_path / "other.safetensors", "other", title="Another one"))
    stand.click(stand.ui.importModelButton)
    stand.wait()
    assert stand.panel.model.id == "other"
    assert stand.ui.applyButton.enabled


def test_a_model_whose_encoder_nobody_knows_is_not_offered_as_present(host, engine, scan, tmp_path):
    from small_models import write_bundle

    from HSAMSegmentLib.weights.catalog import Catalog
    from HSAMSegmentLib.weights.manifest import EncoderSource
    from HSAMSegmentLib.weights.store import Store

    folder = tmp_path / "home" / "models"
    folder.mkdir(parents=True)
    write_bundle(folder, "a-orphan", encoder_source=EncoderSource(included=False, model_id="gone"))
    write_bundle(folder, "b-whole")
    store = Store(tmp_path / "home", catalog=Catalog(()), embedded=tmp_path / "none")
    stand = PanelStand(host, engine, store)
    assert [choice.id for choice in stand.panel._choices] == ["b-whole", "a-orphan"]
    assert stand.ui.applyButton.enabled
    stand.ui.modelCombo.setCurrentIndex(1)
    assert "on this computer" not in stand.ui.modelInfoLabel.text
    assert not stand.ui.applyButton.enabled
    assert "needs the encoder 'gone', which nobody knows here" in stand.status
    stand.close()
