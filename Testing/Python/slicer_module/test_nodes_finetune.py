"""From nodes to cases: exact for every grid and transform, the scene unchanged; numbers into table and chart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from finetune_panel_driver import add_segmentation

pytestmark = pytest.mark.host
NAMES = {1: "Liver", 2: "Spleen"}
OBLIQUE = np.array([[0.8, -1.2, 0.0, 10.0], [0.6, 1.6, 0.0, -20.0], [0.0, 0.0, 5.0, 30.0], [0.0, 0.0, 0.0, 1.0]])
GRIDS = {
    "axial": np.diag([-1.5, -1.5, 4.0, 1.0]),
    "oblique": OBLIQUE,
    "left-handed": np.diag([1.5, -1.5, 4.0, 1.0]),
    "slices along i": np.array(
        [[0.0, 0.0, 1.5, 3.0], [0.0, 1.5, 0.0, 4.0], [5.0, 0.0, 0.0, 5.0], [0.0, 0.0, 0.0, 1.0]]
    ),
}


def truth(shape=(10, 24, 30)):
    labels = np.zeros(shape, np.uint8)
    labels[2:8, 4:15, 5:20] = 1
    labels[3:6, 16:22, 20:28] = 2
    return labels


def add_scan(matrix, shape=(10, 24, 30), name="Scan"):
    import slicer

    array = np.random.default_rng(0).normal(50, 100, shape).astype(np.int16)
    return slicer.util.addVolumeFromArray(array, matrix, name)


@pytest.fixture(params=sorted(GRIDS))
def scan(request, scene):
    return add_scan(GRIDS[request.param])


def exported(tmp_path, volume, segmentation, names=None):
    """The case that the worker will see."""
    from HSAMSegmentLib.slicer.nodes.finetune.cases import NodePair
    from HSAMSegmentLib.training.data.cases import open_case
    from HSAMSegmentLib.worker.array_export import ExportChain
    from HSAMSegmentLib.workflows.finetune.inspect_cases import finetune_labels

    pair = NodePair(volume, segmentation)
    names = names or {organ.label.name: organ.label.name for organ in pair.summarize().organs}
    case, writers = pair.export(tmp_path, 1, names)
    chain = ExportChain(writers)
    while not chain.step():
        pass
    return open_case(case, finetune_labels([pair.summarize()], names, ()))


def test_the_worker_sees_exactly_what_was_drawn(scan, tmp_path):
    import slicer

    case = exported(tmp_path, scan, add_segmentation(scan, truth(), NAMES))
    assert np.array_equal(case.labels, truth())
    assert np.array_equal(case.volume.array, slicer.util.arrayFromVolume(scan))
    assert [label.name for label in case.label_set] == ["Liver", "Spleen"]


def turn(scene, name, angle, shift):
    import slicer

    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    c, s = math.cos(angle), math.sin(angle)
    matrix = np.array([[c, -s, 0, shift], [s, c, 0, -shift], [0, 0, 1, 2 * shift], [0, 0, 0, 1]])
    slicer.util.updateTransformMatrixFromArray(node, matrix)
    return node


def test_a_transform_above_both_changes_nothing(scan, scene, tmp_path):
    segmentation = add_segmentation(scan, truth(), NAMES)
    transform = turn(scene, "Both", 0.4, 25.0)
    for node in (scan, segmentation):
        node.SetAndObserveTransformNodeID(transform.GetID())
    assert np.array_equal(exported(tmp_path, scan, segmentation).labels, truth())


def test_labels_follow_when_only_the_segmentation_is_moved(scene, tmp_path):
    import slicer

    scan = add_scan(GRIDS["axial"])
    segmentation = add_segmentation(scan, truth(), NAMES)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    moved = np.eye(4)
    moved[:3, 3] = [-1.5 * 3, -1.5 * 2, 4.0]  # three columns, two rows and a slice further
    slicer.util.updateTransformMatrixFromArray(transform, moved)
    segmentation.SetAndObserveTransformNodeID(transform.GetID())
    expected = np.zeros_like(truth())
    expected[1:, 2:, 3:] = truth()[:-1, :-2, :-3]
    assert np.array_equal(exported(tmp_path, scan, segmentation).labels, expected)


def test_a_transform_that_is_not_linear_is_refused_with_what_to_do(scene):
    import slicer

    from HSAMSegmentLib.slicer.nodes.finetune.cases import summarize_nodes

    scan = add_scan(GRIDS["axial"])
    segmentation = add_segmentation(scan, truth(), NAMES)
    bent = scene.AddNewNodeByClass("vtkMRMLTransformNode", "Bent")
    bent.SetAndObserveTransformToParent(slicer.vtkOrientedBSplineTransform())
    segmentation.SetAndObserveTransformNodeID(bent.GetID())
    assert "Harden it first" in summarize_nodes(scan, segmentation).problem


def test_overlapping_segments_keep_the_smaller_one(scene, tmp_path):
    import slicer

    scan = add_scan(GRIDS["axial"])
    segmentation = add_segmentation(scan, truth(), NAMES)
    lesion = np.zeros_like(truth())
    lesion[4:6, 6:9, 8:12] = 1
    identifier = segmentation.GetSegmentation().AddEmptySegment("lesion", "Lesion")
    slicer.util.updateSegmentBinaryLabelmapFromArray(lesion, segmentation, identifier, scan)
    case = exported(tmp_path, scan, segmentation)
    assert np.array_equal(case.labels == 3, lesion == 1)
    assert np.array_equal(case.labels == 1, (truth() == 1) & (lesion == 0))


def test_a_segmentation_with_surfaces_only_can_be_finetuned_and_stays_as_it_was(scene, tmp_path):
    scan = add_scan(GRIDS["axial"])
    node = add_segmentation(scan, truth(), NAMES)
    node.CreateClosedSurfaceRepresentation()
    segmentation = node.GetSegmentation()
    segmentation.SetSourceRepresentationName("Closed surface")
    segmentation.RemoveRepresentation("Binary labelmap")
    labels = exported(tmp_path, scan, node).labels
    assert not segmentation.ContainsRepresentation("Binary labelmap")
    both = 2 * np.count_nonzero((labels == 1) & (truth() == 1))
    assert both / (np.count_nonzero(labels == 1) + np.count_nonzero(truth() == 1)) > 0.9


def test_the_summary_counts_slices_of_the_scan_and_warns_of_few(scene):
    from HSAMSegmentLib.slicer.nodes.finetune.cases import summarize_nodes

    scan = add_scan(GRIDS["axial"])
    summary = summarize_nodes(scan, add_segmentation(scan, truth(), NAMES))
    assert (summary.slices, summary.labeled_slices) == (10, 6)
    assert [organ.slices for organ in summary.organs] == [6, 3]
    assert summary.notes == ()
    few = truth()
    few[:5] = 0
    summary = summarize_nodes(scan, add_segmentation(scan, few, NAMES))
    assert summary.labeled_slices == 3
    assert "too few to hold some out" in summary.notes[0]


def test_slices_are_counted_along_the_axis_of_the_acquisition(scene):
    from HSAMSegmentLib.slicer.nodes.finetune.cases import summarize_nodes

    scan = add_scan(GRIDS["slices along i"])
    summary = summarize_nodes(scan, add_segmentation(scan, truth(), NAMES))
    assert summary.slices == 30
    assert summary.labeled_slices == int(truth().any(axis=(0, 1)).sum())


def test_labels_that_lie_elsewhere_are_a_problem(scene):
    from HSAMSegmentLib.slicer.nodes.finetune.cases import summarize_nodes

    far = GRIDS["axial"].copy()
    far[:3, 3] = 900.0
    segmentation = add_segmentation(add_scan(GRIDS["axial"]), truth(), NAMES)
    assert "no labeled voxel on this scan" in summarize_nodes(add_scan(far), segmentation).problem


def test_the_code_of_a_segment_goes_with_its_organ(scene):
    import slicer

    from HSAMSegmentLib.labels.terminology import label_for, terminology_tag
    from HSAMSegmentLib.slicer.nodes.finetune.cases import summarize_nodes

    scan = add_scan(GRIDS["axial"])
    node = add_segmentation(scan, truth(), {1: "my own words"})
    liver = label_for(1, "Liver").terminology
    tag = slicer.vtkSegment.GetTerminologyEntryTagName()
    node.GetSegmentation().GetNthSegment(0).SetTag(tag, terminology_tag(liver))
    (organ,) = summarize_nodes(scan, node).organs
    assert organ.label.terminology == liver
    assert organ.label.name == "my own words"


def looks(count):
    from HSAMSegmentLib.workflows.finetune.validation_record import ValidationRecord

    return [
        ValidationRecord(10 * n, 6.0 * n, None if n == 0 else 2.0 / n, {"Liver": 0.1 * n}, True) for n in range(count)
    ]


def test_numbers_come_into_a_table_and_a_chart_row_by_row(scene):
    from HSAMSegmentLib.labels.terminology import label_set_of
    from HSAMSegmentLib.slicer.nodes.finetune.chart import TrainingChart

    chart = TrainingChart("My model", label_set_of(NAMES))
    for look in looks(4):
        chart.add(look)
    table = chart.table_node.GetTable()
    assert [table.GetColumnByName("Step").GetValue(row) for row in range(4)] == [0, 10, 20, 30]
    assert [table.GetColumnByName("Dice Liver").GetValue(row) for row in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert math.isnan(table.GetColumnByName("Loss").GetValue(0))
    assert math.isnan(table.GetColumnByName("Dice Spleen").GetValue(2))
    assert table.GetColumnByName("Loss relative to its highest").GetValue(2) == pytest.approx(0.5)
    kept = [table.GetColumnByName("Mean Dice of the kept state").GetValue(row) for row in range(4)]
    assert [math.isnan(value) for value in kept] == [True, True, True, False]
    assert kept[3] == pytest.approx(0.3)
    assert chart.chart_node.GetNumberOfPlotSeriesNodes() == 4, "two organs, the loss, and what is kept"
    chart.add(looks(3)[2])
    assert table.GetNumberOfRows() == 3, "steps that are taken again after an interruption count once"


def test_the_chart_comes_into_the_plot_view_and_the_layout_can_be_had_back(scene):
    import slicer

    from HSAMSegmentLib.labels.terminology import label_set_of
    from HSAMSegmentLib.slicer.nodes.finetune.chart import TrainingChart

    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode") or scene.AddNewNodeByClass("vtkMRMLLayoutNode")
    layout.SetViewArrangement(layout.SlicerLayoutFourUpView)
    chart = TrainingChart("My model", label_set_of(NAMES))
    chart.show(looks(2))
    chart.show_in_layout()
    selection = slicer.app.applicationLogic().GetSelectionNode()
    assert selection.GetActivePlotChartID() == chart.chart_node.GetID()
    assert layout.GetViewArrangement() != layout.SlicerLayoutFourUpView
    chart.give_layout_back()
    assert layout.GetViewArrangement() == layout.SlicerLayoutFourUpView


def test_after_the_scene_was_closed_the_numbers_come_into_the_next_one(scene):
    from HSAMSegmentLib.labels.terminology import label_set_of
    from HSAMSegmentLib.slicer.nodes.finetune.chart import TrainingChart

    chart = TrainingChart("My model", label_set_of(NAMES))
    chart.show(looks(2))
    scene.Clear(0)
    chart.add(looks(3)[2])
    assert chart.table_node.GetScene() is scene
    assert chart.table_node.GetTable().GetNumberOfRows() == 3


def test_the_table_is_saved_with_its_numbers(scene, host, tmp_path):
    import slicer

    from HSAMSegmentLib.labels.terminology import label_set_of
    from HSAMSegmentLib.slicer.nodes.finetune.chart import TrainingChart

    chart = TrainingChart("My model", label_set_of(NAMES))
    chart.show(looks(3))
    assert slicer.util.saveNode(chart.table_node, str(tmp_path / "numbers.csv"))
    header, *rows = (tmp_path / "numbers.csv").read_text().splitlines()
    assert "Dice Liver" in header
    assert len(rows) == 3


def test_a_result_keeps_the_slices_that_its_model_doubts():
    from HSAMSegmentLib.report.correction_slices import DoubtfulSlice, slices_to_correct

    def entry(index, confidence, voxels):
        return {"index": index, "position_ijk": [1, 2, index], "voxels": voxels, "confidence": confidence}

    report = {
        "labels": [
            {
                "name": "Liver",
                "slices": [entry(3, 0.9, 100), entry(4, 0.2, 100), entry(5, 0.3, 100), entry(20, 0.5, 90)],
            },
            {"name": "Spleen", "slices": [entry(20, 0.1, 10)]},
        ]
    }
    found = slices_to_correct(report, count=2)
    assert [item.index for item in found] == [4, 20], "a neighbor of a corrected slice is nearly corrected too"
    assert found[0] == DoubtfulSlice(4, (1, 2, 4), "Liver", 0.2, pytest.approx(80.0))
    assert found[1].doubt == pytest.approx(54.0)
    assert slices_to_correct(None) == ()
