"""The tab Batch, driven by clicks, with a real worker on real scans."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal

import numpy as np
import pytest
from panel_fixtures import engine, store_of_one_model
from parts_stand import PartStand, table_texts

pytestmark = pytest.mark.host
__all__ = ["engine"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Its model takes scans of every modality."""
    with store_of_one_model(tmp_path_factory.mktemp("store"), modality="") as store:
        yield store


@pytest.fixture
def stand(host, scene, engine, store):
    from HSAMSegmentLib.slicer.panels.batch.batch_tab import build
    from HSAMSegmentLib.slicer.panels.widgets.model_list import StoreModels

    stand = PartStand(host, build, engine, StoreModels(store))
    engine.when_idle = stand.part.refresh
    yield stand
    engine.when_idle = None
    if engine.is_busy:
        engine.cancel()
        stand.wait(lambda: not engine.is_busy)
    stand.close()


@pytest.fixture
def scans(data_folder):
    """Files of two real scans."""
    folder = data_folder / "chaos_t2" / "images"
    return [folder / "chaos_t2_02.nii.gz", folder / "chaos_t2_03.nii.gz"]


@pytest.fixture
def loaded(scene, scans):
    import slicer

    return [slicer.util.loadVolume(str(path), {}) for path in scans]


def run(stand):
    stand.part._list_scans()
    assert stand.ui.batchButton.enabled, stand.status
    stand.click(stand.ui.batchButton)
    stand.wait(lambda: not stand.part._is_running)


def choose(stand, mode):
    stand.ui.modeCombo.setCurrentIndex(stand.ui.modeCombo.findData(mode))
    stand.host.process_events()


def states(stand):
    """What the table says of each scan, without the word on notes and the reason."""
    return [re.split("[,:]", row[1])[0] for row in table_texts(stand.ui.batchTable)]


def click_row(stand, number):
    """Click a scan in the table."""
    stand.ui.batchTable.cellClicked.emit(number, 0)
    stand.host.process_events()


def shown_scan():
    """Name of the scan in the slice views."""
    from HSAMSegmentLib.slicer.nodes.navigation import active_scan

    return active_scan().GetName()


def shown_segmentations():
    """Names of the segmentations that are not hidden."""
    import slicer

    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [node.GetName() for node in nodes if node.GetDisplayNode().GetVisibility()]


def segmentation_names():
    import slicer

    return [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")]


def summary_node():
    import slicer

    (node,) = slicer.util.getNodesByClass("vtkMRMLTableNode")
    return node


def test_one_click_segments_all_scans_of_the_scene(stand, loaded):
    import slicer

    run(stand)
    assert segmentation_names() == ["chaos_t2_02 organs", "chaos_t2_03 organs"]
    assert "2 of 2 scans segmented" in stand.status
    rows = table_texts(stand.ui.batchTable)
    assert [row[0] for row in rows] == ["chaos_t2_02", "chaos_t2_03"]
    assert states(stand) == ["done", "done"]
    volumes = slicer.util.arrayFromTableColumn(summary_node(), "Liver (mL)")
    assert [float(row[2]) for row in rows] == pytest.approx(list(volumes), abs=0.05)
    assert stand.ui.batchButton.text == "Segment all"


def test_a_click_on_a_row_shows_the_scan_with_its_own_result_alone(stand, loaded):
    run(stand)
    assert len(shown_segmentations()) == 2
    for number, name in ((1, "chaos_t2_03"), (0, "chaos_t2_02")):
        click_row(stand, number)
        assert shown_scan() == name
        assert shown_segmentations() == [f"{name} organs"]
        assert f"Result: {name} organs." in stand.ui.detailLabel.text


def test_a_scan_that_cannot_be_segmented_is_named_and_stops_no_other(stand, scene, loaded):
    import slicer

    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    broken = slicer.util.addVolumeFromArray(np.full((4, 8, 8), np.nan, np.float32), name="Broken")
    scene.RemoveNode(loaded[1])
    stand.part._list_scans()
    items = [stand.ui.scanList.item(row) for row in range(stand.ui.scanList.count)]
    assert [item.text() for item in items] == ["chaos_t2_02", "Empty (cannot be segmented)", "Broken"]
    assert "no image data" in items[1].toolTip()
    run(stand)
    assert [row[0] for row in table_texts(stand.ui.batchTable)] == ["chaos_t2_02", "Broken"]
    assert states(stand) == ["done", "failed"]
    assert "1 of 2 scans segmented, 1 failed" in stand.status
    assert table_texts(stand.ui.batchTable)[1][1].startswith("failed: No voxel")
    click_row(stand, 1)
    assert stand.ui.detailLabel.text.startswith("Broken: ")
    assert len(stand.ui.detailLabel.text) > len("Broken: ")
    assert slicer.app.applicationLogic().GetSelectionNode().GetActiveVolumeID() == broken.GetID()


def test_only_checked_scans_are_segmented(stand, loaded):
    import qt

    stand.part._list_scans()
    stand.ui.scanList.item(0).setCheckState(qt.Qt.Unchecked)
    run(stand)
    assert segmentation_names() == ["chaos_t2_03 organs"]
    stand.click(stand.ui.noScansButton)
    assert not stand.ui.batchButton.enabled
    assert stand.status == "Check at least one scan."


def test_a_cancel_keeps_what_is_finished(stand, loaded):
    import slicer

    slicer.util.addVolumeFromArray(np.zeros((400, 256, 256), np.int16), None, "Big")
    stand.part._list_scans()
    stand.click(stand.ui.batchButton)
    assert stand.ui.batchButton.text == "Cancel"
    stand.wait(lambda: stand.part._batch.rows[1].state == "done")
    stand.click(stand.ui.batchButton)
    stand.wait(lambda: not stand.part._is_running)
    assert segmentation_names() == ["chaos_t2_02 organs", "chaos_t2_03 organs"]
    assert states(stand) == ["done", "done", "not done"]
    assert "Cancelled; what is finished stays. 2 of 3" in stand.status
    assert stand.ui.batchButton.enabled


def test_the_frames_of_a_sequence_get_a_sequence_of_segmentations(stand, scene, loaded):
    import slicer

    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Cine")
    for time, volume in enumerate(loaded):
        sequence.SetDataNodeAtValue(volume, str(time))
        scene.RemoveNode(volume)
    choose(stand, "sequence")
    assert stand.status == "Choose a sequence."
    stand.ui.sequenceSelector.setCurrentNode(sequence)
    run(stand)
    assert states(stand) == ["done", "done"]
    (results,) = [node for node in slicer.util.getNodesByClass("vtkMRMLSequenceNode") if node is not sequence]
    assert [results.GetNthDataNode(n).GetSegmentation().GetNumberOfSegments() for n in range(2)] == [2, 2]


@pytest.mark.slow
def test_the_results_of_a_sequence_play_along_in_its_browser_and_are_saved_with_the_scene(
    stand, scene, loaded, tmp_path
):
    import slicer

    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Cine")
    for time, volume in enumerate(loaded):
        sequence.SetDataNodeAtValue(volume, str(time))
        scene.RemoveNode(volume)
    choose(stand, "sequence")
    stand.ui.sequenceSelector.setCurrentNode(sequence)
    run(stand)
    expected = [float(cell) for row in table_texts(stand.ui.batchTable) for cell in row[2:]]
    assert expected[:2] != expected[2:]
    assert frames_by_browser(stand, click_row) == pytest.approx(expected, abs=0.06)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    stand.part.leave_scene()
    scene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert frames_by_browser(stand, lambda _stand, number: browser().SetSelectedItemNumber(number)) == pytest.approx(
        expected, abs=0.06
    )


def browser():
    import slicer

    (node,) = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")
    return node


def frames_by_browser(stand, go_to):
    """Volumes (mL) of the segments that are shown with each of two frames, counted on the frame."""
    import slicer

    found = []
    for number in range(2):
        go_to(stand, number)
        slicer.modules.sequences.logic().UpdateAllProxyNodes()
        nodes = [browser().GetProxyNode(node) for node in slicer.util.getNodesByClass("vtkMRMLSequenceNode")]
        scan = next(node for node in nodes if node.IsA("vtkMRMLScalarVolumeNode"))
        shown = next(node for node in nodes if node.IsA("vtkMRMLSegmentationNode"))
        segments = shown.GetSegmentation().GetSegmentIDs()
        masks = [slicer.util.arrayFromSegmentBinaryLabelmap(shown, item, scan) for item in segments]
        found.append([mask.astype(bool).sum() * np.prod(scan.GetSpacing()) / 1000 for mask in masks])
    return [value for frame in found for value in frame]


def test_without_the_sequences_module_it_says_so(stand, monkeypatch):
    import slicer

    monkeypatch.delattr(slicer.modules, "sequences")
    choose(stand, "sequence")
    assert "no Sequences module" in stand.status
    assert not stand.ui.batchButton.enabled


@pytest.mark.slow
def test_a_folder_is_segmented_file_by_file(stand, scans, tmp_path):
    (tmp_path / "in").mkdir()
    for path in scans:
        shutil.copy(path, tmp_path / "in")
    (tmp_path / "in" / "broken.nii.gz").write_bytes(b"not a scan")
    choose(stand, "folder")
    assert stand.status == "Choose the folder with the scans."
    stand.answers.folder = str(tmp_path / "in")
    stand.click(stand.ui.sourceButton)
    assert stand.ui.outputEdit.text == str(tmp_path / "in organs")
    run(stand)
    rows = {row[0]: row for row in table_texts(stand.ui.batchTable)}
    assert list(rows) == ["broken", "chaos_t2_02", "chaos_t2_03"]
    assert states(stand) == ["failed", "done", "done"]
    written = sorted(path.name for path in (tmp_path / "in organs").glob("*.seg.nrrd"))
    assert written == ["chaos_t2_02.seg.nrrd", "chaos_t2_03.seg.nrrd"]
    assert float(rows["chaos_t2_02"][2]) > 0
    assert "2 of 3 scans segmented, 1 failed" in stand.status
    run(stand)
    click_row(stand, 1)
    assert "earlier run" in stand.ui.detailLabel.text


@pytest.mark.slow
def test_a_click_loads_a_scan_of_a_folder_with_its_result_once(stand, scans, tmp_path):
    import slicer

    from HSAMSegmentLib.slicer.nodes.segmentations.provenance import doubts_of, model_of, scan_of

    for path in scans:
        (tmp_path / "in" / path.stem).mkdir(parents=True)
        shutil.copy(path, tmp_path / "in" / path.stem)
    (tmp_path / "in" / "broken.nii.gz").write_bytes(b"not a scan")
    choose(stand, "folder")
    stand.ui.sourceEdit.text, stand.ui.outputEdit.text = str(tmp_path / "in"), str(tmp_path / "out")
    run(stand)
    assert slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") == []
    for number in (1, 2, 1):
        click_row(stand, number)
        assert shown_scan() == stand.part._batch.rows[number].name
        assert shown_segmentations() == [f"{shown_scan()} organs"]
    assert len(segmentation_names()) == len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == 2
    first = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[0]
    assert scan_of(first).GetName() == stand.part._batch.rows[1].name
    assert (model_of(first), bool(doubts_of(first))) == ("tiny", True)
    identifier = first.GetSegmentation().GetSegmentIdBySegmentName("Liver")
    liver = slicer.util.arrayFromSegmentBinaryLabelmap(first, identifier, scan_of(first)).astype(bool)
    voxel_ml = np.prod(scan_of(first).GetSpacing()) / 1000
    assert float(table_texts(stand.ui.batchTable)[1][2]) == pytest.approx(liver.sum() * voxel_ml, abs=0.06)
    click_row(stand, 0)
    assert "It cannot be shown" in stand.ui.detailLabel.text
    (tmp_path / "out" / f"{stand.part._batch.rows[2].name}.seg.nrrd").unlink()
    slicer.mrmlScene.RemoveNode(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[1])
    click_row(stand, 2)
    assert "It cannot be shown: There is no file" in stand.ui.detailLabel.text


def test_results_cannot_go_into_the_folder_of_the_scans(stand, tmp_path):
    choose(stand, "folder")
    stand.ui.sourceEdit.text = stand.ui.outputEdit.text = str(tmp_path)
    stand.host.process_events()
    assert "cannot go into the folder of the scans" in stand.status
    stand.ui.sourceEdit.text = str(tmp_path / "nowhere")
    stand.host.process_events()
    assert "There is no folder" in stand.status


def test_undo_still_takes_back_the_result_of_the_first_tab(stand, engine, loaded):
    from HSAMSegmentLib.slicer.nodes.segment_session import Order

    single = engine.run(Order(loaded[0], "tiny")).segmentation_node
    run(stand)
    engine.history.undo()
    assert single.GetScene() is None
    assert len(segmentation_names()) == 2


def test_the_summary_is_saved_as_csv(stand, loaded, tmp_path):
    run(stand)
    stand.answers.path = str(tmp_path / "summary.csv")
    stand.click(stand.ui.saveButton)
    with (tmp_path / "summary.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["Scan"] for row in rows] == ["chaos_t2_02", "chaos_t2_03"]
    assert all(float(row["Liver (mL)"]) >= 0 for row in rows)


def test_closing_the_scene_meanwhile_ends_the_batch_and_leaves_a_working_tab(stand, scene, loaded):
    stand.part._list_scans()
    stand.click(stand.ui.batchButton)
    stand.part.leave_scene()
    scene.Clear(0)
    stand.wait(lambda: not stand.part._context.engine.is_busy)
    node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "HSAMSegment")
    stand.part.show_parameters(node)
    assert scene.GetFirstNodeByClass("vtkMRMLTableNode") is None
    assert scene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None
    assert "There is no scan in the scene" in stand.status


def test_scans_that_are_loaded_meanwhile_appear_in_the_list(stand, scans):
    import slicer

    assert stand.ui.scanList.count == 0
    slicer.util.loadVolume(str(scans[0]), {})
    stand.wait(lambda: stand.ui.scanList.count == 1, seconds=5.0)
    assert stand.ui.batchButton.enabled


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="uses POSIX signals")
def test_a_worker_that_is_killed_costs_one_scan_and_no_other(stand, engine, loaded):
    run(stand)
    runner = engine._session._runner
    os.kill(runner.worker_pid, signal.SIGSTOP)  # so that it cannot be faster than its end
    stand.click(stand.ui.batchButton)
    stand.wait(lambda: runner.is_running)
    os.kill(runner.worker_pid, signal.SIGKILL)
    stand.wait(lambda: not stand.part._is_running)
    assert states(stand) == ["failed", "done"]
    stand.ui.batchTable.cellClicked.emit(0, 0)
    assert "ended from outside" in stand.ui.detailLabel.text


@pytest.mark.slow
def test_a_cancelled_folder_keeps_the_files_and_rows_of_what_is_finished(stand, scans, tmp_path):
    import SimpleITK

    (tmp_path / "in").mkdir()
    shutil.copy(scans[0], tmp_path / "in" / "a.nii.gz")
    big = SimpleITK.GetImageFromArray(np.zeros((400, 256, 256), np.int16))
    SimpleITK.WriteImage(big, str(tmp_path / "in" / "b.nii.gz"))
    choose(stand, "folder")
    stand.ui.sourceEdit.text, stand.ui.outputEdit.text = str(tmp_path / "in"), str(tmp_path / "out")
    stand.click(stand.ui.batchButton)
    stand.wait(lambda: states(stand) == ["done", "waiting"])
    stand.click(stand.ui.batchButton)
    stand.wait(lambda: not stand.part._is_running)
    assert states(stand) == ["done", "not done"]
    assert "Cancelled; what is finished stays. 1 of " in stand.status
    assert [path.name for path in (tmp_path / "out").glob("*.seg.nrrd")] == ["a.seg.nrrd"]
