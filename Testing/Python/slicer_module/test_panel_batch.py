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
from tab_driver import TabDriver, table_texts

pytestmark = pytest.mark.host
__all__ = ["engine"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Its model takes scans of every modality."""
    with store_of_one_model(tmp_path_factory.mktemp("store"), modality="") as store:
        yield store


@pytest.fixture
def driver(host, scene, engine, store):
    from HSAMSegmentLib.slicer.panels.batch.batch_tab import build
    from HSAMSegmentLib.slicer.panels.widgets.model_list import StoreModels

    driver = TabDriver(host, build, engine, StoreModels(store))
    engine.when_idle = driver.tab.refresh
    yield driver
    engine.when_idle = None
    if engine.is_busy:
        engine.cancel()
        driver.wait(lambda: not engine.is_busy)
    driver.close()


@pytest.fixture(scope="module")
def scans(data_folder, tmp_path_factory):
    """Files of two scans: every second voxel of every second slice."""
    import SimpleITK as sitk

    paths, folder = [], tmp_path_factory.mktemp("halved")
    for name in ("chaos_t2_02.nii.gz", "chaos_t2_03.nii.gz"):
        image = sitk.ReadImage(str(data_folder / "chaos_t2" / "images" / name))
        paths.append(folder / name)
        sitk.WriteImage(image[::2, ::2, ::2], str(paths[-1]))
    return paths


@pytest.fixture
def loaded(scene, scans):
    import slicer

    return [slicer.util.loadVolume(str(path), {}) for path in scans]


def run(driver):
    driver.tab.look_at_scene()
    assert driver.ui.batchButton.enabled, driver.status
    driver.click(driver.ui.batchButton)
    driver.wait(lambda: not driver.tab._is_running)


def choose(driver, mode):
    driver.ui.modeCombo.setCurrentIndex(driver.ui.modeCombo.findData(mode))
    driver.host.process_events()


def states(driver):
    """What the table says of each scan, without the word on notes and the reason."""
    return [re.split("[,:]", row[1])[0] for row in table_texts(driver.ui.batchTable)]


def click_row(driver, number):
    """Click a scan in the table."""
    driver.ui.batchTable.cellClicked.emit(number, 0)
    driver.host.process_events()


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


def test_one_click_segments_all_scans_of_the_scene(driver, loaded):
    import slicer

    run(driver)
    assert segmentation_names() == ["chaos_t2_02 organs", "chaos_t2_03 organs"]
    assert "2 of 2 scans segmented" in driver.status
    rows = table_texts(driver.ui.batchTable)
    assert [row[0] for row in rows] == ["chaos_t2_02", "chaos_t2_03"]
    assert states(driver) == ["done", "done"]
    volumes = slicer.util.arrayFromTableColumn(summary_node(), "Liver (mL)")
    assert [float(row[2]) for row in rows] == pytest.approx(list(volumes), abs=0.05)
    assert driver.ui.batchButton.text == "Segment all"


def test_a_click_on_a_row_shows_the_scan_with_its_own_result_alone(driver, loaded):
    run(driver)
    assert len(shown_segmentations()) == 2
    for number, name in ((1, "chaos_t2_03"), (0, "chaos_t2_02")):
        click_row(driver, number)
        assert shown_scan() == name
        assert shown_segmentations() == [f"{name} organs"]
        assert f"Result: {name} organs." in driver.ui.detailLabel.text


def test_a_scan_that_cannot_be_segmented_is_named_and_stops_no_other(driver, scene, loaded):
    import slicer

    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    broken = slicer.util.addVolumeFromArray(np.full((4, 8, 8), np.nan, np.float32), name="Broken")
    scene.RemoveNode(loaded[1])
    driver.tab.look_at_scene()
    items = [driver.ui.scanList.item(row) for row in range(driver.ui.scanList.count)]
    assert [item.text() for item in items] == ["chaos_t2_02", "Empty (cannot be segmented)", "Broken"]
    assert "no image data" in items[1].toolTip()
    run(driver)
    assert [row[0] for row in table_texts(driver.ui.batchTable)] == ["chaos_t2_02", "Broken"]
    assert states(driver) == ["done", "failed"]
    assert "1 of 2 scans segmented, 1 failed" in driver.status
    assert table_texts(driver.ui.batchTable)[1][1].startswith("failed: No voxel")
    click_row(driver, 1)
    assert driver.ui.detailLabel.text.startswith("Broken: ")
    assert len(driver.ui.detailLabel.text) > len("Broken: ")
    assert slicer.app.applicationLogic().GetSelectionNode().GetActiveVolumeID() == broken.GetID()


def test_only_checked_scans_are_segmented(driver, loaded):
    import qt

    driver.tab.look_at_scene()
    driver.ui.scanList.item(0).setCheckState(qt.Qt.Unchecked)
    run(driver)
    assert segmentation_names() == ["chaos_t2_03 organs"]
    driver.click(driver.ui.noScansButton)
    assert not driver.ui.batchButton.enabled
    assert driver.status == "Check at least one scan."


def test_a_cancel_keeps_what_is_finished(driver, loaded):
    import slicer

    slicer.util.addVolumeFromArray(np.zeros((400, 256, 256), np.int16), None, "Big")
    driver.tab.look_at_scene()
    driver.click(driver.ui.batchButton)
    assert driver.ui.batchButton.text == "Cancel"
    driver.wait(lambda: driver.tab._batch.rows[1].state == "done")
    driver.click(driver.ui.batchButton)
    driver.wait(lambda: not driver.tab._is_running)
    assert segmentation_names() == ["chaos_t2_02 organs", "chaos_t2_03 organs"]
    assert states(driver) == ["done", "done", "not done"]
    assert "Cancelled; what is finished stays. 2 of 3" in driver.status
    assert driver.ui.batchButton.enabled


def test_the_frames_of_a_sequence_get_a_sequence_of_segmentations(driver, scene, loaded):
    import slicer

    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Cine")
    for time, volume in enumerate(loaded):
        sequence.SetDataNodeAtValue(volume, str(time))
        scene.RemoveNode(volume)
    choose(driver, "sequence")
    assert driver.status == "Choose a sequence."
    driver.ui.sequenceSelector.setCurrentNode(sequence)
    run(driver)
    assert states(driver) == ["done", "done"]
    (results,) = [node for node in slicer.util.getNodesByClass("vtkMRMLSequenceNode") if node is not sequence]
    assert [results.GetNthDataNode(n).GetSegmentation().GetNumberOfSegments() for n in range(2)] == [2, 2]


@pytest.mark.slow
def test_the_results_of_a_sequence_play_along_in_its_browser_and_are_saved_with_the_scene(
    driver, scene, loaded, tmp_path
):
    import slicer

    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Cine")
    for time, volume in enumerate(loaded):
        sequence.SetDataNodeAtValue(volume, str(time))
        scene.RemoveNode(volume)
    choose(driver, "sequence")
    driver.ui.sequenceSelector.setCurrentNode(sequence)
    run(driver)
    expected = [float(cell) for row in table_texts(driver.ui.batchTable) for cell in row[2:]]
    assert expected[:2] != expected[2:]
    assert frames_by_browser(driver, click_row) == pytest.approx(expected, abs=0.06)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    driver.tab.leave_scene()
    scene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert frames_by_browser(driver, lambda _driver, number: browser().SetSelectedItemNumber(number)) == pytest.approx(
        expected, abs=0.06
    )


def browser():
    import slicer

    (node,) = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")
    return node


def frames_by_browser(driver, go_to):
    """Volumes (mL) of the segments that are shown with each of two frames, counted on the frame."""
    import slicer

    found = []
    for number in range(2):
        go_to(driver, number)
        slicer.modules.sequences.logic().UpdateAllProxyNodes()
        nodes = [browser().GetProxyNode(node) for node in slicer.util.getNodesByClass("vtkMRMLSequenceNode")]
        scan = next(node for node in nodes if node.IsA("vtkMRMLScalarVolumeNode"))
        shown = next(node for node in nodes if node.IsA("vtkMRMLSegmentationNode"))
        segments = shown.GetSegmentation().GetSegmentIDs()
        masks = [slicer.util.arrayFromSegmentBinaryLabelmap(shown, item, scan) for item in segments]
        found.append([mask.astype(bool).sum() * np.prod(scan.GetSpacing()) / 1000 for mask in masks])
    return [value for frame in found for value in frame]


def test_without_the_sequences_module_it_says_so(driver, monkeypatch):
    import slicer

    monkeypatch.delattr(slicer.modules, "sequences")
    choose(driver, "sequence")
    assert "no Sequences module" in driver.status
    assert not driver.ui.batchButton.enabled


@pytest.mark.slow
def test_a_folder_is_segmented_file_by_file(driver, scans, tmp_path):
    (tmp_path / "in").mkdir()
    for path in scans:
        shutil.copy(path, tmp_path / "in")
    (tmp_path / "in" / "broken.nii.gz").write_bytes(b"not a scan")
    choose(driver, "folder")
    assert driver.status == "Choose the folder with the scans."
    driver.answers.folder = str(tmp_path / "in")
    driver.click(driver.ui.sourceButton)
    assert driver.ui.outputEdit.text == str(tmp_path / "in organs")
    run(driver)
    rows = {row[0]: row for row in table_texts(driver.ui.batchTable)}
    assert list(rows) == ["broken", "chaos_t2_02", "chaos_t2_03"]
    assert states(driver) == ["failed", "done", "done"]
    written = sorted(path.name for path in (tmp_path / "in organs").glob("*.seg.nrrd"))
    assert written == ["chaos_t2_02.seg.nrrd", "chaos_t2_03.seg.nrrd"]
    assert float(rows["chaos_t2_02"][2]) > 0
    assert "2 of 3 scans segmented, 1 failed" in driver.status
    run(driver)
    click_row(driver, 1)
    assert "earlier run" in driver.ui.detailLabel.text


@pytest.mark.slow
def test_a_click_loads_a_scan_of_a_folder_with_its_result_once(driver, scans, tmp_path):
    import slicer

    from HSAMSegmentLib.slicer.nodes.segmentations.segments import doubts_of, model_of, scan_of

    for path in scans:
        (tmp_path / "in" / path.stem).mkdir(parents=True)
        shutil.copy(path, tmp_path / "in" / path.stem)
    (tmp_path / "in" / "broken.nii.gz").write_bytes(b"not a scan")
    choose(driver, "folder")
    driver.ui.sourceEdit.text, driver.ui.outputEdit.text = str(tmp_path / "in"), str(tmp_path / "out")
    run(driver)
    assert slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") == []
    for number in (1, 2, 1):
        click_row(driver, number)
        assert shown_scan() == driver.tab._batch.rows[number].name
        assert shown_segmentations() == [f"{shown_scan()} organs"]
    assert len(segmentation_names()) == len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == 2
    first = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[0]
    assert scan_of(first).GetName() == driver.tab._batch.rows[1].name
    assert (model_of(first), bool(doubts_of(first))) == ("tiny", True)
    identifier = first.GetSegmentation().GetSegmentIdBySegmentName("Liver")
    liver = slicer.util.arrayFromSegmentBinaryLabelmap(first, identifier, scan_of(first)).astype(bool)
    voxel_ml = np.prod(scan_of(first).GetSpacing()) / 1000
    assert float(table_texts(driver.ui.batchTable)[1][2]) == pytest.approx(liver.sum() * voxel_ml, abs=0.06)
    click_row(driver, 0)
    reason = driver.tab._batch.rows[0].message
    assert driver.ui.detailLabel.text.count(reason) == 1
    (tmp_path / "out" / f"{driver.tab._batch.rows[2].name}.seg.nrrd").unlink()
    slicer.mrmlScene.RemoveNode(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[1])
    click_row(driver, 2)
    assert "It cannot be shown: There is no file" in driver.ui.detailLabel.text


def test_results_cannot_go_into_the_folder_of_the_scans(driver, tmp_path):
    choose(driver, "folder")
    driver.ui.sourceEdit.text = driver.ui.outputEdit.text = str(tmp_path)
    driver.host.process_events()
    assert "cannot go into the folder of the scans" in driver.status
    driver.ui.sourceEdit.text = str(tmp_path / "nowhere")
    driver.host.process_events()
    assert "There is no folder" in driver.status


def test_undo_still_takes_back_the_result_of_the_first_tab(driver, engine, loaded):
    from HSAMSegmentLib.slicer.nodes.segment_session import bind_request

    single = engine.run(bind_request(loaded[0], "tiny")).segmentation_node
    run(driver)
    engine.history.undo()
    assert single.GetScene() is None
    assert len(segmentation_names()) == 2


def test_the_summary_is_saved_as_csv(driver, loaded, tmp_path):
    run(driver)
    driver.answers.path = str(tmp_path / "summary.csv")
    driver.click(driver.ui.saveButton)
    with (tmp_path / "summary.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["Scan"] for row in rows] == ["chaos_t2_02", "chaos_t2_03"]
    assert all(float(row["Liver (mL)"]) >= 0 for row in rows)


def test_closing_the_scene_meanwhile_ends_the_batch_and_leaves_a_working_tab(driver, scene, loaded):
    driver.tab.look_at_scene()
    driver.click(driver.ui.batchButton)
    driver.tab.leave_scene()
    scene.Clear(0)
    driver.wait(lambda: not driver.tab._context.engine.is_busy)
    node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "HSAMSegment")
    driver.tab.show_parameters(node)
    assert scene.GetFirstNodeByClass("vtkMRMLTableNode") is None
    assert scene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None
    assert "There is no scan in the scene" in driver.status


def test_scans_that_are_loaded_meanwhile_appear_in_the_list(driver, scans):
    import slicer

    assert driver.ui.scanList.count == 0
    slicer.util.loadVolume(str(scans[0]), {})
    driver.wait(lambda: driver.ui.scanList.count == 1, seconds=5.0)
    assert driver.ui.batchButton.enabled


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="uses POSIX signals")
def test_a_worker_that_is_killed_costs_one_scan_and_no_other(driver, engine, loaded):
    run(driver)
    runner = engine._session._runner
    os.kill(runner.worker_pid, signal.SIGSTOP)  # so that it cannot be faster than its end
    driver.click(driver.ui.batchButton)
    driver.wait(lambda: runner.is_running)
    os.kill(runner.worker_pid, signal.SIGKILL)
    driver.wait(lambda: not driver.tab._is_running)
    assert states(driver) == ["failed", "done"]
    driver.ui.batchTable.cellClicked.emit(0, 0)
    assert "ended from outside" in driver.ui.detailLabel.text


@pytest.mark.slow
def test_a_cancelled_folder_keeps_the_files_and_rows_of_what_is_finished(driver, scans, tmp_path):
    import SimpleITK

    (tmp_path / "in").mkdir()
    shutil.copy(scans[0], tmp_path / "in" / "a.nii.gz")
    big = SimpleITK.GetImageFromArray(np.zeros((400, 256, 256), np.int16))
    SimpleITK.WriteImage(big, str(tmp_path / "in" / "b.nii.gz"))
    choose(driver, "folder")
    driver.ui.sourceEdit.text, driver.ui.outputEdit.text = str(tmp_path / "in"), str(tmp_path / "out")
    driver.click(driver.ui.batchButton)
    driver.wait(lambda: states(driver) == ["done", "waiting"])
    driver.click(driver.ui.batchButton)
    driver.wait(lambda: not driver.tab._is_running)
    assert states(driver) == ["done", "not done"]
    assert "Cancelled; what is finished stays. 1 of " in driver.status
    assert [path.name for path in (tmp_path / "out").glob("*.seg.nrrd")] == ["a.seg.nrrd"]


def test_the_scan_unlike_the_others_is_listed_first_and_shown_at_a_click(driver, tmp_path):
    import SimpleITK as sitk

    from HSAMSegmentLib.images.sitk_images import image_of
    from HSAMSegmentLib.phantom import abdomen_phantom, phantom_geometry

    for seed in range(4):
        volume, _ = abdomen_phantom(seed=seed, geometry=phantom_geometry((64, 64, 6), (5.0, 5.0, 45.0)))
        array = volume.array if seed else volume.array.max() - volume.array
        name = "alike" if seed else "unlike"
        sitk.WriteImage(image_of(array.astype(np.int16), volume.geometry), str(tmp_path / f"{name}_{seed}.nii.gz"))
    ui = driver.ui
    choose(driver, "folder")
    assert not ui.usefulButton.enabled
    ui.sourceEdit.text = str(tmp_path)
    driver.host.process_events()
    assert ui.usefulButton.enabled, ui.usefulButton.toolTip
    driver.click(ui.usefulButton)
    assert ui.usefulButton.text == "Cancel"
    driver.wait(lambda: not driver.tab.useful.is_running)
    assert ui.usefulButton.text == "Most useful to correct"
    assert "4 scans compared" in driver.status
    assert ui.usefulList.count == 4
    assert ui.usefulList.item(0).text().startswith("1. unlike_0\nIt looks unlike")
    ui.usefulList.setCurrentRow(0)
    driver.host.process_events()
    assert shown_scan().startswith("unlike_0")


def test_a_search_for_useful_scans_can_be_canceled_and_fails_with_a_sentence(driver, tmp_path):
    ui = driver.ui
    choose(driver, "folder")
    (tmp_path / "broken.nii.gz").write_bytes(b"no scan")
    ui.sourceEdit.text = str(tmp_path)
    driver.host.process_events()
    driver.click(ui.usefulButton)
    driver.wait(lambda: not driver.tab.useful.is_running)
    assert "could be looked at" in driver.status
    driver.click(ui.usefulButton)
    driver.click(ui.usefulButton)
    driver.wait(lambda: not driver.tab.useful.is_running)
    assert ui.usefulButton.enabled
