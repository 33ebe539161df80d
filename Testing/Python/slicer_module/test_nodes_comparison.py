"""Segmentations of the real scene, compared by the job, against the comparison of their plain label maps."""

from __future__ import annotations

import numpy as np
import pytest
from test_nodes_volumes import LEFT_HANDED, OBLIQUE, add_transform

from HSAMSegmentLib.errors import RequestError, VolumeError
from HSAMSegmentLib.evaluation.label_matching import StructurePair
from HSAMSegmentLib.labels.label_set import Code, Terminology
from HSAMSegmentLib.runtime.serialization import to_plain
from HSAMSegmentLib.workflows.compare.compare_request import ABSENT, BOTH, NOT_COMPARED, ONLY_SECOND

pytestmark = pytest.mark.host

SHAPE = (9, 10, 11)
ANATOMY = Code("SCT", "123037004", "Anatomical Structure")
LIVER = Terminology(ANATOMY, Code("SCT", "10200004", "Liver"))
TISSUE = Terminology(Code("SCT", "85756007", "Tissue"), Code("SCT", "85756007", "Tissue"))
TURN = np.array([[0.0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])


@pytest.fixture
def comparison(scene):
    from HSAMSegmentLib.slicer.nodes.segmentations import comparison

    return comparison


def blocks(shift=0):
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:6, 3:7, 3 + shift : 8 + shift] = 1
    labels[6:8, 1:3, 1:3] = 2
    return labels


def add_segmentation(labels, name, ijk_to_ras=OBLIQUE, names=("Liver", "Right kidney"), transform=None, codes=()):
    """A segmentation of a scan, as the Segment Editor would leave it; the scan is removed again."""
    import slicer

    from HSAMSegmentLib.labels.terminology import terminology_tag

    volume = slicer.util.addVolumeFromArray(np.zeros(labels.shape, np.int16), ijk_to_ras, f"Scan of {name}")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    if transform is not None:
        for item in (volume, node):
            item.SetAndObserveTransformNodeID(transform.GetID())
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for value, title in enumerate(names, 1):
        node.GetSegmentation().AddEmptySegment(title, title)
        mask = (labels == value).astype(np.uint8)
        if mask.any():
            slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, title, volume)
    for title, code in zip(names, codes):
        tag = slicer.vtkSegment.GetTerminologyEntryTagName()
        node.GetSegmentation().GetSegment(title).SetTag(tag, terminology_tag(code))
    return node


def run(comparison, first, second, pairs=None, tmp_path=None):
    """The task as the engine runs it, in this process."""
    from HSAMSegmentLib.workflows.requests import request_from_json, request_to_json
    from HSAMSegmentLib.workflows.run import run

    if pairs is None:
        pairs = comparison.guess_pairs(first, second)
    task = comparison.CompareTask(first, second, pairs)
    request, export = task.prepare(tmp_path)
    while not export.step():
        pass
    request = request_from_json(request_to_json(request))
    return task.finish(to_plain(run(request)))


def expected_dice(first, second, value):
    ours, theirs = first == value, second == value
    return 2.0 * np.sum(ours & theirs) / (ours.sum() + theirs.sum())


@pytest.mark.parametrize("ijk_to_ras", [np.eye(4), OBLIQUE, LEFT_HANDED], ids=["identity", "oblique", "left-handed"])
@pytest.mark.parametrize("transformed", [False, True], ids=["", "transformed"])
def test_dice_distance_and_volume_are_those_of_the_label_maps(comparison, scene, tmp_path, ijk_to_ras, transformed):
    transform = add_transform(scene, TURN) if transformed else None
    first = add_segmentation(blocks(1), "Mine", ijk_to_ras, transform=transform)
    second = add_segmentation(blocks(), "Reference", ijk_to_ras, transform=transform)
    outcome = run(comparison, first, second, tmp_path=tmp_path).outcome
    liver, kidney = outcome.scores
    voxel_ml = abs(np.linalg.det(ijk_to_ras[:3, :3])) / 1000
    assert liver.dice == pytest.approx(expected_dice(blocks(1), blocks(), 1))
    assert liver.hd95_mm == pytest.approx(np.linalg.norm(ijk_to_ras[:3, 0]))
    assert liver.first_ml == pytest.approx((blocks(1) == 1).sum() * voxel_ml)
    assert (kidney.state, kidney.dice, kidney.hd95_mm) == (BOTH, 1.0, 0.0)
    assert outcome.notes == ()


def test_a_transform_of_one_alone_is_taken_into_account(comparison, scene, tmp_path):
    shift = np.eye(4)
    shift[:3, 3] = np.asarray(OBLIQUE)[:3, 0]
    first = add_segmentation(blocks(), "Mine", transform=add_transform(scene, shift))
    second = add_segmentation(blocks(1), "Reference")
    outcome = run(comparison, first, second, tmp_path=tmp_path).outcome
    assert outcome.scores[0].dice == pytest.approx(1.0)
    assert outcome.scores[1].dice < 1.0


def test_distances_under_a_transform_that_shears_are_those_in_the_world(comparison, scene, tmp_path):
    shear = np.eye(4)
    shear[0, 2], shear[1, 2] = 0.4, -0.2
    transform = add_transform(scene, shear)
    labels = np.roll(blocks(1), 2, axis=0), blocks()
    first, second = (add_segmentation(item, name, np.eye(4)) for item, name in zip(labels, ("Mine", "Reference")))
    straight = run(comparison, first, second, tmp_path=tmp_path).outcome.scores[0]
    for node in (first, second):
        node.SetAndObserveTransformNodeID(transform.GetID())
    sheared = run(comparison, first, second, tmp_path=tmp_path).outcome.scores[0]
    assert sheared.dice == straight.dice
    ours, theirs = (surface_places(item == 1, shear) for item in labels)
    apart = np.linalg.norm(ours[:, None] - theirs[None], axis=2)
    nearest = apart.min(axis=1), apart.min(axis=0)
    assert sheared.asd_mm == pytest.approx(np.concatenate(nearest).mean())
    assert sheared.hd95_mm == pytest.approx(max(np.percentile(part, 95) for part in nearest))
    assert sheared.asd_mm != pytest.approx(straight.asd_mm)


def surface_places(mask, ijk_to_ras):
    """Places of the voxels that share a face with one outside."""
    from HSAMSegmentLib.evaluation.metrics import surface_voxels

    return np.argwhere(surface_voxels(mask))[:, ::-1] @ ijk_to_ras[:3, :3].T


def test_a_transform_that_bends_is_refused_in_a_sentence(comparison, scene, tmp_path):
    bent = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Bent")
    import vtk

    spline = vtk.vtkThinPlateSplineTransform()
    for points in ("SetSourceLandmarks", "SetTargetLandmarks"):
        landmarks = vtk.vtkPoints()
        for point in ((0, 0, 0), (9, 0, 0), (0, 9, 0), (0, 0, 9), (5, 5, 5 if points.startswith("SetS") else 8)):
            landmarks.InsertNextPoint(*point)
        getattr(spline, points)(landmarks)
    bent.SetAndObserveTransformToParent(spline)
    first = add_segmentation(blocks(), "Mine")
    first.SetAndObserveTransformNodeID(bent.GetID())
    with pytest.raises(RequestError, match="Harden"):
        run(comparison, first, add_segmentation(blocks(), "Reference"), [StructurePair("Liver", 0, 0)], tmp_path)


def test_inputs_stay_as_they_are(comparison, tmp_path):
    first, second = add_segmentation(blocks(1), "Mine"), add_segmentation(blocks(), "Reference")
    before = [node.GetSegmentation().GetMTime() for node in (first, second)]
    compared = run(comparison, first, second, tmp_path=tmp_path)
    overlay = comparison.show_disagreement(compared)
    assert [node.GetSegmentation().GetMTime() for node in (first, second)] == before
    assert overlay not in (first, second)


def test_the_overlay_shows_exactly_what_differs(comparison, scene, tmp_path):
    import slicer

    transform = add_transform(scene, TURN)
    first = add_segmentation(blocks(1), "Mine", transform=transform)
    second = add_segmentation(blocks(), "Reference", transform=transform)
    overlay = comparison.show_disagreement(run(comparison, first, second, tmp_path=tmp_path))
    volume = slicer.util.getNode("Scan of Mine")
    found = [
        slicer.util.arrayFromSegmentBinaryLabelmap(overlay, identifier, volume) > 0
        for identifier in overlay.GetSegmentation().GetSegmentIDs()
    ]
    assert np.array_equal(found[0], (blocks(1) > 0) & (blocks() == 0))
    assert np.array_equal(found[1], (blocks() > 0) & (blocks(1) == 0))
    assert not found[2].any()


def test_the_worst_place_is_where_the_two_differ(comparison, tmp_path):
    first, second = add_segmentation(blocks(1), "Mine"), add_segmentation(blocks(), "Reference")
    liver = run(comparison, first, second, tmp_path=tmp_path).outcome.scores[0]
    i, j, k = np.round((np.linalg.inv(OBLIQUE) @ [*liver.worst_ras, 1.0])[:3]).astype(int)
    assert (blocks(1) == 1)[k, j, i] != (blocks() == 1)[k, j, i]
    assert liver.worst_dice < 1.0


def test_structures_are_paired_by_code_before_name_and_a_code_that_says_nothing_is_not_looked_at(comparison):
    first = add_segmentation(blocks(), "Mine", names=("Leber", "Rest"), codes=(LIVER, TISSUE))
    second = add_segmentation(blocks(), "Reference", names=("Hepar", "Tumor"), codes=(LIVER, TISSUE))
    pairs = comparison.match_nodes(first, second)
    assert [(pair.prediction and pair.prediction.name, pair.reference and pair.reference.name) for pair in pairs] == [
        ("Leber", "Hepar"),
        (None, "Tumor"),
        ("Rest", None),
    ]


def test_what_is_empty_or_missing_on_one_side_has_a_state(comparison, tmp_path):
    only_liver = np.where(blocks() == 1, 1, 0).astype(np.uint8)
    first = add_segmentation(only_liver, "Mine", names=("Liver", "Right kidney", "Spleen", "Cyst"))
    second = add_segmentation(blocks(), "Reference", names=("Liver", "Right kidney", "Spleen"))
    scores = run(comparison, first, second, tmp_path=tmp_path).outcome.scores
    assert [score.state for score in scores] == [BOTH, ONLY_SECOND, ABSENT, NOT_COMPARED]
    assert scores[1].dice == 0.0
    assert scores[1].hd95_mm is None
    assert scores[2].dice is None


def test_overlapping_segments_are_compared_in_full(comparison, tmp_path):
    import slicer

    nodes = []
    for name in ("Mine", "Reference"):
        node = add_segmentation(blocks(), name)
        volume = slicer.util.getNode(f"Scan of {name}")
        node.GetSegmentation().AddEmptySegment("Body", "Body")
        body = np.ones(SHAPE, np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(body, node, "Body", volume)
        nodes.append(node)
    outcome = run(comparison, *nodes, tmp_path=tmp_path).outcome
    assert {score.name: score.dice for score in outcome.scores} == {"Liver": 1.0, "Right kidney": 1.0, "Body": 1.0}
    assert outcome.scores[2].first_ml == pytest.approx(outcome.scores[2].second_ml)


def test_a_label_map_is_a_reference_too(comparison, scene, tmp_path):
    import slicer

    first = add_segmentation(blocks(1), "Mine", names=("Segment_1", "Segment_2"))
    labels = slicer.util.addVolumeFromArray(blocks(), OBLIQUE, "Labels", "vtkMRMLLabelMapVolumeNode")
    labels.CreateDefaultDisplayNodes()
    assert [pair.by for pair in comparison.match_nodes(first, labels)] == ["value", "value"]
    outcome = run(comparison, first, labels, tmp_path=tmp_path).outcome
    assert outcome.scores[0].dice == pytest.approx(expected_dice(blocks(1), blocks(), 1))


def test_surfaces_are_compared_by_a_converted_copy(comparison, tmp_path):
    first, second = add_segmentation(blocks(), "Mine"), add_segmentation(blocks(), "Reference")
    segmentation = second.GetSegmentation()
    second.CreateClosedSurfaceRepresentation()
    segmentation.SetSourceRepresentationName("Closed surface")
    segmentation.RemoveRepresentation("Binary labelmap")
    outcome = run(comparison, first, second, tmp_path=tmp_path).outcome
    assert outcome.scores[0].dice > 0.7
    assert not segmentation.ContainsRepresentation("Binary labelmap")


def test_another_place_is_refused_in_a_sentence(comparison, scene, tmp_path):
    far = np.eye(4)
    far[0, 3] = 9000.0
    first = add_segmentation(blocks(), "Mine", transform=add_transform(scene, far))
    with pytest.raises(VolumeError, match="outside of the scan"):
        run(comparison, first, add_segmentation(blocks(), "Reference"), tmp_path=tmp_path)


def test_the_table_holds_numbers_and_is_used_again_for_the_same_two(comparison, scene, tmp_path):
    import slicer

    first, second = add_segmentation(blocks(1), "Mine"), add_segmentation(blocks(), "Reference")
    table = run(comparison, first, second, tmp_path=tmp_path).table_node
    assert table.GetTable().GetColumnByName("Structure").GetValue(0) == "Liver"
    dice = slicer.util.arrayFromTableColumn(table, "Dice")
    assert dice == pytest.approx([expected_dice(blocks(1), blocks(), 1), 1.0])
    assert run(comparison, first, second, tmp_path=tmp_path).table_node is table
    assert run(comparison, second, first, tmp_path=tmp_path).table_node is not table


def test_a_script_compares_with_one_call(host, scene):
    from pathlib import Path

    import slicer

    if not hasattr(slicer.modules, "hsamsegment"):
        host.load_module(Path(__file__).resolve().parents[3] / "HSAMSegment" / "HSAMSegment.py")
    from HSAMSegment import HSAMSegmentLogic

    logic = HSAMSegmentLogic()
    try:
        compared = logic.compareAndWait(add_segmentation(blocks(1), "Mine"), add_segmentation(blocks(), "Reference"))
        assert compared.outcome.scores[0].dice == pytest.approx(expected_dice(blocks(1), blocks(), 1))
        assert compared.table_node.GetScene() is scene
        with pytest.raises(RequestError, match="Choose a segmentation"):
            logic.compareAndWait(None, None)
    finally:
        logic.close()
