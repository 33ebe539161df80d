"""The tab Compare, driven by clicks, on a scan and its labels."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from conftest import REPOSITORY
from tab_driver import TabDriver, ijk_to_ras, masks, ras_to_ijk, table_texts

pytestmark = pytest.mark.host
NAMES = {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}


@pytest.fixture(scope="module")
def engine(host):
    """One engine for all tests, so that its worker starts once."""
    from HSAMSegmentLib.slicer.panels.engine import Engine

    engine = Engine()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def files(data_folder, tmp_path_factory):
    """Folder of a scan, `scan.nii.gz`, and of its labels, `labels.nii.gz`: every second voxel of each slice."""
    import SimpleITK as sitk

    folder = tmp_path_factory.mktemp("halved")
    for part, name in (("images", "scan"), ("labels", "labels")):
        image = sitk.ReadImage(str(data_folder / "chaos_t2" / part / "chaos_t2_02.nii.gz"))
        sitk.WriteImage(image[::2, ::2, :], str(folder / f"{name}.nii.gz"))
    return folder


@pytest.fixture
def scan(scene, files):
    import slicer

    return slicer.util.loadVolume(str(files / "scan.nii.gz"), {})


@pytest.fixture
def reference(scan, files):
    return load_labels(files, scan, "Reference")


@pytest.fixture
def organs(scan, files):
    """The reference, a little wrong and without spleen."""
    import slicer

    node = load_labels(files, scan, "Organs")
    for identifier in node.GetSegmentation().GetSegmentIDs():
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, identifier, scan)
        wrong = np.roll(mask, (0, 2, 3), axis=(0, 1, 2))
        slicer.util.updateSegmentBinaryLabelmapFromArray(wrong, node, identifier, scan)
    node.GetSegmentation().RemoveSegment("spleen")
    return node


@pytest.fixture
def driver(host, engine, organs, reference):
    from HSAMSegmentLib.slicer.panels.compare.compare_tab import CompareTab

    driver = TabDriver(host, partial(CompareTab, make_engine=lambda: engine), engine)
    driver.ui.firstSelector.setCurrentNode(organs)
    driver.ui.secondSelector.setCurrentNode(reference)
    host.process_events()
    yield driver
    driver.tab._parameters = None
    driver.tab.widget.setMRMLScene(None)
    driver.tab.widget.deleteLater()


def load_labels(files, scan, name):
    """The labels of the scan as a segmentation."""
    import slicer

    labels = slicer.util.loadLabelVolume(str(files / "labels.nii.gz"), {})
    array = slicer.util.arrayFromVolume(labels)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(scan)
    for value, title in NAMES.items():
        node.GetSegmentation().AddEmptySegment(title, title)
        slicer.util.updateSegmentBinaryLabelmapFromArray((array == value).astype(np.uint8), node, title, scan)
    slicer.mrmlScene.RemoveNode(labels)
    return node


def compare(driver):
    assert driver.ui.compareButton.enabled, driver.status
    driver.click(driver.ui.compareButton)
    driver.wait(lambda: not driver.tab.engine.is_busy)


def dice(ours, theirs):
    return 2.0 * np.sum(ours & theirs) / (ours.sum() + theirs.sum())


def test_one_click_gives_the_numbers_of_every_organ(driver, organs, reference, scan):
    compare(driver)
    rows = {row[0]: row for row in table_texts(driver.ui.scoreTable)}
    ours, theirs = masks(organs, scan), masks(reference, scan)
    for name in ("liver", "right kidney", "left kidney"):
        assert float(rows[name][1]) == pytest.approx(dice(ours[name], theirs[name]), abs=0.0005)
        assert float(rows[name][2]) > 0
    voxel_ml = abs(np.prod(scan.GetSpacing())) / 1000
    assert float(rows["liver"][5]) == pytest.approx(theirs["liver"].sum() * voxel_ml, abs=0.51)  # whole mL from 1000 on
    assert rows["spleen"][1:4] == ["0.000", "-", "-"]
    assert "Mean Dice" in driver.status
    assert "Only in B: spleen" in driver.ui.notesLabel.text


def test_a_row_leads_to_a_slice_in_which_the_organ_differs(driver, organs, reference, scan):
    import slicer

    compare(driver)
    view = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    driver.ui.scoreTable.cellClicked.emit(0, 7)
    score = driver.tab._compared.outcome.scores[0]
    assert view.GetSliceOffset() == pytest.approx(score.worst_ras[2], abs=0.01)
    matrix = slicer.util.arrayFromVTKMatrix(ras_to_ijk(scan))
    k = round(float((matrix @ [*score.worst_ras, 1.0])[2]))
    ours, theirs = masks(organs, scan)["liver"], masks(reference, scan)["liver"]
    by_slice = [dice(ours[n], theirs[n]) if (ours[n] | theirs[n]).any() else 2.0 for n in range(len(ours))]
    assert by_slice[k] == pytest.approx(min(by_slice))


def test_the_disagreement_comes_and_goes_with_its_button_and_touches_nothing(driver, organs, reference, scan):
    import slicer

    compare(driver)
    before = [masks(node, scan) for node in (organs, reference)]
    driver.click(driver.ui.disagreementButton)
    (overlay,) = [
        node for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if node not in (organs, reference)
    ]
    shown = masks(overlay, scan)
    ours, theirs = (np.any(list(item.values()), axis=0) for item in before)
    assert np.array_equal(shown["Only in A"], ours & ~theirs)
    assert np.array_equal(shown["Only in B"], theirs & ~ours)
    driver.click(driver.ui.disagreementButton)
    assert overlay.GetScene() is None
    for node, earlier in zip((organs, reference), before):
        now = masks(node, scan)
        assert all(np.array_equal(now[name], earlier[name]) for name in earlier)


def test_the_numbers_are_saved_as_csv_and_a_file_is_not_replaced_without_a_yes(driver, tmp_path):
    compare(driver)
    (tmp_path / "numbers.csv").write_text("precious")
    driver.answers.path = str(tmp_path / "numbers")
    driver.answers.agrees = False
    driver.click(driver.ui.saveButton)
    assert (tmp_path / "numbers.csv").read_text() == "precious"
    driver.answers.agrees = True
    driver.click(driver.ui.saveButton)
    with (tmp_path / "numbers.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["Structure"] for row in rows] == ["liver", "right kidney", "left kidney", "spleen"]
    assert float(rows[0]["Dice"]) == driver.tab._compared.outcome.scores[0].dice
    assert rows[3]["HD95 (mm)"] == ""
    assert "saved" in driver.status


def test_every_number_of_the_csv_is_that_of_the_table_node_and_has_its_unit(driver, tmp_path):
    compare(driver)
    driver.answers.path = str(tmp_path / "numbers.csv")
    driver.click(driver.ui.saveButton)
    with (tmp_path / "numbers.csv").open(newline="", encoding="utf-8") as stream:
        heads, *rows = csv.reader(stream)
    table = driver.tab._compared.table_node.GetTable()
    assert heads == [table.GetColumnName(column) for column in range(table.GetNumberOfColumns())]
    assert {"HD95 (mm)", "ASD (mm)", "Volume A (mL)", "Volume B (mL)", "Difference (mL)", "Difference of B (%)"} < {
        *heads
    }
    for number, row in enumerate(rows):
        values = [table.GetValue(number, column) for column in range(len(heads))]
        assert row[:2] == [value.ToString() for value in values[:2]]
        for text, value in zip(row[2:], values[2:]):
            assert np.isnan(value.ToDouble()) if text == "" else float(text) == value.ToDouble()


def test_files_are_compared_as_nodes_are(driver, files, organs, reference):
    compare(driver)
    expected = driver.tab._compared.outcome.scores
    driver.answers.path = str(files / "labels.nii.gz")
    driver.click(driver.ui.secondFileButton)
    assert driver.tab.nodes[1].GetName().startswith("labels")
    assert [row[2] for row in table_texts(driver.ui.pairTable)] == ["number: please check"] * 3 + [""]
    compare(driver)
    found = driver.tab._compared.outcome.scores
    assert [score.dice for score in found] == [score.dice for score in expected]
    assert [score.hd95_mm for score in found] == pytest.approx([score.hd95_mm for score in expected], abs=1e-3)
    assert [score.second_ml for score in found] == pytest.approx([score.second_ml for score in expected], rel=1e-4)


def test_a_file_that_is_no_segmentation_is_refused_in_a_sentence(driver, scene, data_folder, tmp_path):
    nodes, count = driver.tab.nodes, scene.GetNumberOfNodes()
    (tmp_path / "damaged.seg.nrrd").write_bytes(b"NRRD0004 and then nothing")
    for path, sentence in (
        (data_folder / "ct_totalsegmentator" / "images" / "ct_example_30.nii.gz", "it is a scan, not a label map"),
        (tmp_path / "damaged.seg.nrrd", "damaged.seg.nrrd"),
    ):
        driver.answers.path = str(path)
        driver.click(driver.ui.firstFileButton)
        assert sentence in driver.status
        assert driver.tab.nodes == nodes
    assert scene.GetNumberOfNodes() == count


def test_a_label_map_of_another_grid_is_compared_and_the_grid_is_said(driver, files, scan):
    import slicer

    labels = slicer.util.loadLabelVolume(str(files / "labels.nii.gz"), {})
    coarse = slicer.util.arrayFromVolume(labels)[:, ::2, ::2].copy()
    matrix = slicer.util.arrayFromVTKMatrix(ijk_to_ras(labels)) @ np.diag([2.0, 2.0, 1.0, 1.0])
    node = slicer.util.addVolumeFromArray(coarse, matrix, "Coarse", "vtkMRMLLabelMapVolumeNode")
    driver.ui.firstSelector.setCurrentNode(node)
    compare(driver)
    assert '"Coarse" has another grid than "Reference"' in driver.ui.notesLabel.text
    liver = driver.tab._compared.outcome.scores[0]
    assert liver.dice > 0.9
    assert liver.first_ml == pytest.approx((coarse == 1).sum() * abs(np.linalg.det(matrix[:3, :3])) / 1000)


def test_two_without_a_voxel_are_answered_in_a_sentence(driver, scene):
    for name, selector in (("One", driver.ui.firstSelector), ("Two", driver.ui.secondSelector)):
        node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.GetSegmentation().AddEmptySegment("liver", "liver")
        selector.setCurrentNode(node)
    compare(driver)
    assert driver.status == 'Neither "One" nor "Two" has a voxel: there is nothing to compare.'
    assert "troubleshooting.md#request" in driver.ui.helpLabel.text


def test_the_worst_slice_of_an_organ_that_only_one_has_shows_it(driver, reference, scan):
    import slicer

    compare(driver)
    view = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    driver.ui.scoreTable.cellClicked.emit(3, 0)
    place = driver.tab._compared.outcome.scores[3].worst_ras
    assert view.GetSliceOffset() == pytest.approx(place[2], abs=0.01)
    k = round(float((slicer.util.arrayFromVTKMatrix(ras_to_ijk(scan)) @ [*place, 1.0])[2]))
    spleen = masks(reference, scan)["spleen"].sum(axis=(1, 2))
    assert spleen[k] == spleen.max()


def test_names_that_differ_can_be_paired_by_hand(driver, organs):
    organs.GetSegmentation().GetSegment("liver").SetName("Thing one")
    organs.GetSegmentation().GetSegment("right kidney").SetName("Thing two")
    driver.tab.show_parameters(driver.node)
    assert not driver.ui.pairSection.collapsed
    assert [row[2] for row in table_texts(driver.ui.pairTable)] == ["", "", "terminology", ""]
    choose_partner(driver, 0, "Thing one")
    assert table_texts(driver.ui.pairTable)[0][2] == "your choice"
    compare(driver)
    scores = {score.name: score for score in driver.tab._compared.outcome.scores}
    assert scores["liver"].state == "both"
    assert scores["right kidney"].state == "only in B"
    assert scores["Thing two"].state == "not compared"
    assert "Thing two" in driver.ui.notesLabel.text


def choose_partner(driver, row, text):
    combo = driver.ui.pairTable.cellWidget(row, 1)
    combo.setCurrentIndex(combo.findText(text))
    driver.host.process_events()


def test_comparing_asks_for_no_package_that_it_does_not_need(host):
    script = REPOSITORY / "Testing" / "Python" / "compare_without_packages.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=True)
    status, questions, imported = done.stdout.splitlines()[-3:]
    assert status.startswith("Mean Dice 0.900 over 2 structures")
    assert (questions, imported) == ("[]", "[]")


def test_a_structure_can_be_left_out_of_everything(driver):
    choose_partner(driver, 3, "(leave out)")
    compare(driver)
    assert [score.name for score in driver.tab._compared.outcome.scores] == ["liver", "right kidney", "left kidney"]
    assert "over 3 structures" in driver.status
    assert driver.ui.notesLabel.text == ""


def test_one_structure_cannot_be_chosen_twice(driver):
    choose_partner(driver, 1, "liver")
    assert not driver.ui.compareButton.enabled
    assert "chosen for two" in driver.status


def test_what_is_in_the_way_is_said_before_the_click(driver, scene, organs, reference):
    driver.ui.secondSelector.setCurrentNode(organs)
    assert not driver.ui.compareButton.enabled
    assert "the same segmentation" in driver.status
    empty = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Empty")
    driver.ui.secondSelector.setCurrentNode(empty)
    assert driver.status == "'Empty' has no segments."
    driver.ui.secondSelector.setCurrentNode(None)
    assert "Choose two segmentations" in driver.status
    driver.ui.secondSelector.setCurrentNode(reference)
    assert driver.ui.compareButton.enabled
    assert driver.status == ""


def test_segments_renamed_meanwhile_are_shown_before_they_are_compared(driver, organs):
    organs.GetSegmentation().GetSegment("liver").SetName("Renamed")
    driver.click(driver.ui.compareButton)
    assert "changed meanwhile" in driver.status
    assert not driver.tab.engine.is_busy
    compare(driver)


def test_a_second_click_cancels(driver, scene):
    tables = scene.GetNumberOfNodesByClass("vtkMRMLTableNode")
    driver.click(driver.ui.compareButton)
    assert driver.ui.compareButton.text == "Cancel"
    driver.click(driver.ui.compareButton)
    driver.wait(lambda: not driver.tab.engine.is_busy, seconds=10.0)
    assert driver.status == "Cancelled. Nothing in the scene changed."
    assert scene.GetNumberOfNodesByClass("vtkMRMLTableNode") == tables


def test_closing_the_scene_meanwhile_ends_it_and_leaves_a_working_tab(driver, scene):
    driver.click(driver.ui.compareButton)
    driver.tab.leave_scene()
    scene.Clear(0)
    driver.wait(lambda: not driver.tab.engine.is_busy, seconds=10.0)
    node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "HSAMSegment")
    driver.tab.show_parameters(node)
    assert not driver.ui.resultSection.visible
    assert "Choose two segmentations" in driver.status
    assert scene.GetFirstNodeByClass("vtkMRMLTableNode") is None


def test_the_choice_comes_back_with_the_parameter_node(driver, organs, reference):
    driver.ui.firstSelector.setCurrentNode(reference)
    driver.ui.secondSelector.setCurrentNode(organs)
    driver.tab.show_parameters(driver.node)
    assert driver.tab.nodes == (reference, organs)


@pytest.mark.slow
def test_the_numbers_are_those_of_the_command_line_on_the_same_files(driver, scan, files, tmp_path):
    """A built-in model's result against drawn labels: once in the panel, once as files."""
    import slicer

    from HSAMSegmentLib.evaluation.metrics import compare as compare_files
    from HSAMSegmentLib.labels.segmentation_files import read_segmentation
    from HSAMSegmentLib.slicer.nodes.segment_session import bind_request
    from HSAMSegmentLib.slicer.self_test import MODEL, require_model

    require_model()
    result = driver.tab.engine.run(bind_request(scan, MODEL)).segmentation_node
    labels = files / "labels.nii.gz"
    driver.ui.firstSelector.setCurrentNode(result)
    compare(driver)
    ours = {score.name: score for score in driver.tab._compared.outcome.scores}
    assert slicer.util.saveNode(result, str(tmp_path / "organs.seg.nrrd"), {})
    expected = compare_files(
        read_segmentation(tmp_path / "organs.seg.nrrd"), read_segmentation(labels, names=NAMES)
    ).scores
    assert [score.name for score in expected] == list(ours)
    for score in expected:
        shown = ours[score.name]
        assert shown.dice == pytest.approx(score.dice, abs=1e-9)
        assert shown.hd95_mm == pytest.approx(score.hd95, abs=1e-3)
        assert shown.asd_mm == pytest.approx(score.asd, abs=1e-3)
        assert (shown.first_ml, shown.second_ml) == pytest.approx((score.prediction_ml, score.reference_ml), rel=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="uses POSIX signals")
def test_a_killed_worker_is_said_in_a_sentence_and_the_next_click_works(driver):
    compare(driver)
    runner = driver.tab.engine._session._runner
    worker = runner.worker_pid
    os.kill(worker, signal.SIGSTOP)  # so that it cannot be faster than its end
    driver.click(driver.ui.compareButton)
    driver.wait(lambda: runner.is_running)
    os.kill(worker, signal.SIGKILL)
    driver.wait(lambda: not driver.tab.engine.is_busy)
    assert "ended from outside" in driver.status
    driver.click(driver.ui.copyDetailsButton)
    assert "WorkerDied" in driver.answers.clipboard
    compare(driver)
    assert "Mean Dice" in driver.status
