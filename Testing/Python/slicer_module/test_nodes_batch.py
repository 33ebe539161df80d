"""Many scans one after the other, with a real engine on the real scene; the panel around it is tested elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from untrained_model import write_untrained_model

from HSAMSegmentLib.workflows.events import Cancelled
from HSAMSegmentLib.workflows.segment_folder.folder_request import CANCELLED, DONE, FAILED, SKIPPED

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_untrained_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", modality=""))


@pytest.fixture(scope="module")
def engine(host):
    """Runs jobs inside of this process, where torch is loaded once."""
    from HSAMSegmentLib.slicer.panels.engine import Engine, thread_session

    engine = Engine(thread_session)
    yield engine
    engine.close()


@pytest.fixture
def driver(host, scene, engine, model):
    return BatchDriver(host, engine, model)


class BatchDriver:
    """Runs a batch to its end and remembers what it told."""

    def __init__(self, host, engine, model):
        self.host, self.engine, self.model = host, engine, model
        self.told, self.progress, self.ends = [], [], []
        self.batch = None

    def bound(self, volume):
        from HSAMSegmentLib.slicer.nodes.segment_session import bind_request

        return bind_request(volume, self.model)

    def start(self, items):
        from HSAMSegmentLib.slicer.nodes.batch import Batch, BatchListener

        listener = BatchListener(self.told.append, self.progress.append, self.ends.append)
        self.batch = Batch(items, self.engine, self.bound, listener)
        self.batch.start()

    def wait(self):
        while self.batch.is_running:
            self.host.process_events()

    def run(self, items):
        self.start(items)
        self.wait()
        return self.batch.rows


def noise(seed=0, shape=(8, 32, 32)):
    return np.random.default_rng(seed).normal(50, 100, shape).astype(np.int16)


def add_scan(name, seed=0, shape=(8, 32, 32)):
    import slicer

    return slicer.util.addVolumeFromArray(noise(seed, shape), np.diag([-3.0, -3.0, 3.0, 1.0]), name)


def volume_items(*nodes):
    from HSAMSegmentLib.slicer.nodes.batch import VolumeItem

    return [VolumeItem(node) for node in nodes]


def segmentations():
    import slicer

    return [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")]


def test_every_volume_gets_a_segmentation_of_its_own(driver):
    rows = driver.run(volume_items(add_scan("One"), add_scan("Two", 1)))
    assert [row.state for row in rows] == [DONE, DONE]
    assert [row.output for row in rows] == segmentations() == ["One organs", "Two organs"]
    assert [name for name, volume in rows[0].volumes_ml] == ["Liver", "Right kidney"]
    assert driver.ends == [None]
    fractions = [progress.fraction for progress in driver.progress]
    assert fractions == sorted(fractions)


def test_one_that_cannot_be_segmented_stops_no_other_and_says_why(driver, scene):
    import slicer

    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    color = slicer.util.addVolumeFromArray(np.zeros((4, 4, 4, 3), np.uint8), None, "Photo", "vtkMRMLVectorVolumeNode")
    infinite = add_scan("Infinite")
    slicer.util.updateVolumeFromArray(infinite, np.full((8, 32, 32), np.nan, np.float32))
    rows = driver.run(volume_items(empty, color, infinite, add_scan("Good")))
    assert [row.state for row in rows] == [SKIPPED, SKIPPED, FAILED, DONE]
    assert "no image data" in rows[0].message
    assert "color or vector volume" in rows[1].message
    assert rows[2].message
    assert segmentations() == ["Good organs"]


def test_a_volume_removed_before_its_turn_is_skipped(driver, scene):
    first, second = add_scan("One"), add_scan("Two", 1)
    driver.start(volume_items(first, second))
    scene.RemoveNode(second)
    driver.wait()
    assert [row.state for row in driver.batch.rows] == [DONE, SKIPPED]
    assert "removed" in driver.batch.rows[1].message


def test_a_cancel_keeps_what_is_finished(driver):
    driver.start(volume_items(add_scan("One"), add_scan("Two", 1), add_scan("Three", 2)))
    while driver.batch.rows[0].state != DONE:
        driver.host.process_events()
    driver.batch.cancel()
    driver.wait()
    assert [row.state for row in driver.batch.rows] == [DONE, CANCELLED, CANCELLED]
    assert segmentations() == ["One organs"]
    assert driver.ends == [Cancelled()]


@pytest.fixture
def sequence(scene):
    """Three frames, the middle one without voxels, under a transform."""
    import slicer

    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Cine")
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("ms")
    for time in ("0", "40", "80"):
        frame = add_scan("frame", int(time)) if time != "40" else scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        sequence.SetDataNodeAtValue(frame, time)
        scene.RemoveNode(frame)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "Browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    slicer.modules.sequences.logic().UpdateAllProxyNodes()
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Moved")
    matrix = np.eye(4)
    matrix[0, 3] = 25.0
    slicer.util.updateTransformMatrixFromArray(transform, matrix)
    browser.GetProxyNode(sequence).SetAndObserveTransformNodeID(transform.GetID())
    return sequence


def frame_items(sequence):
    from HSAMSegmentLib.slicer.nodes.sequences import FrameItem, FrameResults

    results = FrameResults(sequence)
    return [FrameItem(sequence, number, results) for number in range(sequence.GetNumberOfDataNodes())]


def test_the_frames_of_a_sequence_become_a_sequence_of_segmentations(driver, scene, sequence):
    import slicer

    nodes_before = {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")}
    rows = driver.run(frame_items(sequence))
    assert [row.name for row in rows] == ["Cine, time 0 ms", "Cine, time 40 ms", "Cine, time 80 ms"]
    assert [row.state for row in rows] == [DONE, SKIPPED, DONE]
    found = [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLSequenceNode")
        if node is not sequence and node.GetNumberOfDataNodes()
    ]
    assert [node.GetName() for node in found] == [rows[0].output]
    (results,) = found
    segments = {
        results.GetNthIndexValue(number): results.GetNthDataNode(number).GetSegmentation().GetNumberOfSegments()
        for number in range(results.GetNumberOfDataNodes())
    }
    assert segments == {"0": 2, "40": 0, "80": 2}
    assert {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")} == nodes_before


def test_a_frame_shows_its_own_result_on_its_own_voxels(driver, scene, sequence, model):
    import slicer

    driver.run(frame_items(sequence))
    logic = slicer.modules.sequences.logic()
    browser = logic.GetFirstBrowserNodeForSequenceNode(sequence)
    (results,) = [
        node for node in slicer.util.getNodesByClass("vtkMRMLSequenceNode") if node.GetName().startswith("Cine organs")
    ]
    alone = driver.engine.run(driver.bound(add_scan("Alone", 80))).segmentation_node
    browser.SetSelectedItemNumber(2)
    logic.UpdateAllProxyNodes()
    shown, frame = browser.GetProxyNode(results), browser.GetProxyNode(sequence)
    assert shown.GetDisplayNode().GetVisibility()
    for identifier in alone.GetSegmentation().GetSegmentIDs():
        image = [
            slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, identifier)
            == node.GetSegmentation().GetSegment(identifier).GetLabelValue()
            for node in (alone, shown)
        ]
        assert np.array_equal(*image)
    assert shown.GetTransformNodeID() == frame.GetTransformNodeID()


def test_a_frame_without_result_does_not_show_that_of_another(driver, scene, sequence):
    import slicer

    driver.run(frame_items(sequence))
    logic = slicer.modules.sequences.logic()
    browser = logic.GetFirstBrowserNodeForSequenceNode(sequence)
    (results,) = [
        node for node in slicer.util.getNodesByClass("vtkMRMLSequenceNode") if node.GetName().startswith("Cine organs")
    ]
    browser.SetSelectedItemNumber(1)
    logic.UpdateAllProxyNodes()
    assert browser.GetProxyNode(results).GetSegmentation().GetNumberOfSegments() == 0
    browser.SetSelectedItemNumber(0)
    logic.UpdateAllProxyNodes()
    assert browser.GetProxyNode(results).GetSegmentation().GetNumberOfSegments() == 2
