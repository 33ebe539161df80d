from __future__ import annotations

import json
from dataclasses import astuple, replace

import numpy as np
import pytest
from test_nodes_volumes import LEFT_HANDED, OBLIQUE, add_transform

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.labels.label_set import Code, Label, Terminology
from HSAMSegmentLib.labels.terminology import terminology_from_tag
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.runtime.serialization import from_plain, to_plain
from HSAMSegmentLib.workflows.segment.segment_request import OrganOutcome, SegmentOutcome, write_labels

pytestmark = pytest.mark.host

ANATOMY = Code("SCT", "123037004", "Anatomical Structure")
KIDNEY = Terminology(ANATOMY, Code("SCT", "64033007", "Kidney"), Code("SCT", "24028007", "Right"))
LIVER = Label(1, "Liver", (0.87, 0.5, 0.4), Terminology(ANATOMY, Code("SCT", "10200004", "Liver")))
RIGHT_KIDNEY = Label(2, "Right kidney", (0.7, 0.4, 0.3), KIDNEY)
SPLEEN = Label(3, "Spleen", (0.6, 0.4, 0.5))
SHAPE = (9, 10, 11)


@pytest.fixture
def bridge(scene):
    from HSAMSegmentLib.slicer.nodes.segmentations import segments as segmentation_bridge

    return segmentation_bridge


def add_volume(ijk_to_ras=None, name="Scan"):
    import slicer

    return slicer.util.addVolumeFromArray(np.zeros(SHAPE, np.int16), ijk_to_ras, name)


def blocks():
    """Three voxels of spleen would be label 3: there are none."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:6, 3:7, 4:9] = 1
    labels[6:8, 2:4, 1:3] = 2
    return labels


def make_outcome(labels, volume, folder):
    from HSAMSegmentLib.slicer.nodes.volumes import volume_geometry

    box = write_labels(labels, folder / "labels.npy")
    organs = tuple(
        OrganOutcome(label, float((labels == label.value).sum()), 0.9, (4, 4, 4), (4, 4, 5))
        if (labels == label.value).any()
        else OrganOutcome(label)
        for label in (LIVER, RIGHT_KIDNEY, SPLEEN)
    )
    file = str(folder / "labels.npy") if box else ""
    return SegmentOutcome(volume_geometry(volume), box or (0,) * 6, file, organs, "phantom", "Phantom")


def read_mask(segmentation, identifier, volume):
    import slicer

    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, volume) > 0


def test_an_outcome_comes_back_from_json(bridge, tmp_path):
    outcome = make_outcome(blocks(), add_volume(OBLIQUE), tmp_path)
    assert from_plain(SegmentOutcome, json.loads(json.dumps(to_plain(outcome)))) == outcome


@pytest.mark.parametrize("ijk_to_ras", [np.eye(4), OBLIQUE, LEFT_HANDED], ids=["identity", "oblique", "left-handed"])
@pytest.mark.parametrize("transformed", [False, True], ids=["", "transformed"])
def test_every_voxel_of_the_result_is_where_the_scan_has_it(bridge, scene, tmp_path, ijk_to_ras, transformed):
    volume, labels = add_volume(ijk_to_ras), blocks()
    if transformed:
        turn = np.array([[0.0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])
        volume.SetAndObserveTransformNodeID(add_transform(scene, turn).GetID())
    node = bridge.create_segmentation(volume, "Organs")
    bridge.write_outcome(make_outcome(labels, volume, tmp_path), volume, node)
    assert np.array_equal(read_mask(node, "liver", volume), labels == 1)
    assert np.array_equal(read_mask(node, "right-kidney", volume), labels == 2)
    assert node.GetParentTransformNode() is volume.GetParentTransformNode()


def test_all_segments_share_one_cropped_image(bridge, tmp_path):
    volume = add_volume()
    node = bridge.create_segmentation(volume, "Organs")
    bridge.write_outcome(make_outcome(blocks(), volume, tmp_path), volume, node)
    segmentation = node.GetSegmentation()
    assert segmentation.GetNumberOfLayers() == 1
    image = segmentation.GetSegment("liver").GetRepresentation(bridge.LABELMAP)
    assert image.GetExtent() == (1, 8, 2, 6, 2, 7)


def test_names_colors_and_codes_are_on_the_segments_and_what_was_not_found_is_left_out(bridge, tmp_path):
    volume = add_volume()
    node = bridge.create_segmentation(volume, "Organs")
    bridge.write_outcome(make_outcome(blocks(), volume, tmp_path), volume, node)
    segmentation = node.GetSegmentation()
    assert list(segmentation.GetSegmentIDs()) == ["liver", "right-kidney"]
    segment = segmentation.GetSegment("right-kidney")
    assert (segment.GetName(), segment.GetColor()) == ("Right kidney", RIGHT_KIDNEY.color)
    tag = segment.GetTerminology().split("~")
    assert tag[1:4] == ["SCT^123037004^Anatomical Structure", "SCT^64033007^Kidney", "SCT^24028007^Right"]


def test_the_node_knows_its_scan_its_model_and_its_place(bridge, scene, tmp_path):
    import slicer

    volume = add_volume()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.CreateItem(study, volume)
    node = bridge.create_segmentation(volume, "Organs")
    bridge.write_outcome(make_outcome(blocks(), volume, tmp_path), volume, node)
    assert node.GetNodeReference(bridge.SOURCE_ROLE) is volume
    assert node.GetAttribute(bridge.MODEL_ATTRIBUTE) == "phantom"
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study


def test_a_second_run_replaces_its_organs_and_nothing_else(bridge, scene, tmp_path):
    import slicer

    volume, labels = add_volume(), blocks()
    node = bridge.create_segmentation(volume, "Organs")
    bridge.write_outcome(make_outcome(labels, volume, tmp_path), volume, node)
    segmentation = node.GetSegmentation()
    segmentation.GetSegment("liver").SetColor(0.1, 0.2, 0.3)
    segmentation.AddEmptySegment("tumor", "Tumor")
    tumor = np.zeros(SHAPE, np.uint8)
    tumor[3, 4, 5] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(tumor, node, "tumor", volume)
    moved = np.roll(np.where(labels == 1, labels, 0), 1, axis=0)
    bridge.write_outcome(make_outcome(moved, volume, tmp_path), volume, node)
    assert np.array_equal(read_mask(node, "liver", volume), moved == 1)
    assert np.array_equal(read_mask(node, "tumor", volume), tumor == 1)
    assert not read_mask(node, "right-kidney", volume).any()
    assert segmentation.GetSegment("liver").GetColor() == (0.1, 0.2, 0.3)


def test_an_organ_that_somebody_drew_into_a_shared_image_is_replaced_without_ghosts(bridge, scene, tmp_path):
    import slicer
    from vtk.util.numpy_support import vtk_to_numpy

    volume, labels = add_volume(), blocks()
    node = bridge.create_segmentation(volume, "Mine")
    segmentation = node.GetSegmentation()
    for name, value in (("Liver", 1), ("Vessel", 2)):
        segmentation.AddEmptySegment(name, name)
        slicer.util.updateSegmentBinaryLabelmapFromArray((labels == value).astype(np.uint8), node, name, volume)
    segmentation.CollapseBinaryLabelmaps(True)
    only_liver = np.roll(np.where(labels == 1, labels, 0), 2, axis=2)
    bridge.write_outcome(make_outcome(only_liver, volume, tmp_path), volume, node)
    assert list(segmentation.GetSegmentIDs()) == ["Liver", "Vessel"]
    assert np.array_equal(read_mask(node, "Liver", volume), only_liver == 1)
    assert np.array_equal(read_mask(node, "Vessel", volume), labels == 2)
    rest = segmentation.GetSegment("Vessel").GetRepresentation(bridge.LABELMAP)
    assert len(np.unique(vtk_to_numpy(rest.GetPointData().GetScalars()))) == 2


def test_a_scan_that_changed_meanwhile_gets_no_result(bridge, tmp_path):
    volume = add_volume()
    outcome = make_outcome(blocks(), volume, tmp_path)
    volume.SetSpacing(1.0, 1.0, 2.0)
    node = bridge.create_segmentation(volume, "Organs")
    with pytest.raises(RequestError, match="was changed"):
        bridge.write_outcome(outcome, volume, node)
    assert node.GetSegmentation().GetNumberOfSegments() == 0


def test_a_segmentation_of_another_grid_or_transform_is_refused_before_the_run(bridge, scene, tmp_path):
    volume, other = add_volume(), add_volume(OBLIQUE, "Other")
    node = bridge.create_segmentation(volume, "Organs")
    assert bridge.output_problem(None, volume) == ""
    assert bridge.output_problem(node, other) == ""
    bridge.write_outcome(make_outcome(blocks(), volume, tmp_path), volume, node)
    assert bridge.output_problem(node, volume) == ""
    assert "another grid" in bridge.output_problem(node, other)
    volume.SetAndObserveTransformNodeID(add_transform(scene, np.eye(4)).GetID())
    assert "another transform" in bridge.output_problem(node, volume)


@pytest.mark.parametrize("transformed", [False, True], ids=["", "transformed"])
def test_a_saved_file_holds_everything(bridge, scene, tmp_path, transformed):
    import slicer

    volume, labels = add_volume(OBLIQUE), blocks()
    if transformed:
        volume.SetAndObserveTransformNodeID(add_transform(scene, np.diag([-1.0, -1.0, 1.0, 1.0])).GetID())
    node = bridge.create_segmentation(volume, "Organs")
    bridge.write_outcome(make_outcome(labels, volume, tmp_path), volume, node)
    assert slicer.util.saveNode(node, str(tmp_path / "organs.seg.nrrd"), {})
    back = slicer.util.loadSegmentation(str(tmp_path / "organs.seg.nrrd"), {})
    back.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    segment = back.GetSegmentation().GetSegment("right-kidney")
    assert segment.GetName() == "Right kidney"
    assert np.allclose(segment.GetColor(), RIGHT_KIDNEY.color, atol=1e-3)
    assert "SCT^24028007^Right" in segment.GetTerminology()
    assert np.array_equal(read_mask(back, "right-kidney", volume), labels == 2)


def test_a_bundle_of_the_scene_holds_everything(bridge, host, scene, tmp_path):
    import slicer

    volume, labels = add_volume(LEFT_HANDED), blocks()
    node = bridge.create_segmentation(volume, "Organs")
    bridge.write_outcome(make_outcome(labels, volume, tmp_path), volume, node)
    assert host.save_scene(tmp_path / "scene.mrb")
    scene.Clear(0)
    assert host.load_scene(tmp_path / "scene.mrb")
    node, volume = slicer.util.getNode("Organs"), slicer.util.getNode("Scan")
    flipped_on_load = labels[::-1]  # the application makes left-handed grids right-handed when it reads them
    assert np.array_equal(read_mask(node, "liver", volume), flipped_on_load == 1)
    assert node.GetNodeReference(bridge.SOURCE_ROLE) is volume
    for label in (LIVER, RIGHT_KIDNEY):
        segment = node.GetSegmentation().GetSegment(bridge.segment_id(label.name))
        assert segment.GetName() == label.name
        assert np.allclose(segment.GetColor(), label.color, atol=1e-3)
        assert terminology_from_tag(segment.GetTerminology()) == label.terminology
    assert node.GetAttribute(bridge.MODEL_ATTRIBUTE) == "phantom"


def test_every_segment_has_the_codes_that_a_dicom_export_reads(bridge, scene, tmp_path):
    """Slicer's exporter itself is not part of slicer-core; this is what it asks the nodes for."""
    import slicer

    volume, labels = add_volume(OBLIQUE), blocks()
    labels[0, 0, 0] = SPLEEN.value
    volume.SetAttribute("DICOM.instanceUIDs", "1.2.3.1 1.2.3.2")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Patient")
    study = hierarchy.CreateStudyItem(patient, "Study")
    hierarchy.CreateItem(study, volume)
    node = bridge.create_segmentation(volume, "Organs")
    bridge.write_outcome(make_outcome(labels, volume, tmp_path), volume, node)
    reference = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
    assert reference.GetAttribute("DICOM.instanceUIDs") == "1.2.3.1 1.2.3.2"
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
    assert node.GetSegmentation().GetSourceRepresentationName() == bridge.LABELMAP
    for label in (LIVER, RIGHT_KIDNEY, SPLEEN):
        segment = node.GetSegmentation().GetSegment(bridge.segment_id(label.name))
        category, kind, modifier = _codes_for_slicer(segment)
        assert np.allclose(segment.GetColor(), label.color)
        if label.terminology is None:
            assert kind == ("SCT", "85756007", "Tissue"), "what Slicer calls everything that nobody named"
            continue
        assert category == astuple(label.terminology.category)
        assert kind == astuple(label.terminology.type)
        assert modifier == (label.terminology.modifier and astuple(label.terminology.modifier))


def _codes_for_slicer(segment):
    """Category, type and modifier of a segment, as Slicer itself reads its tag."""
    import slicer

    entry = slicer.vtkSlicerTerminologyEntry()
    assert slicer.modules.terminologies.logic().DeserializeTerminologyEntry(segment.GetTerminology(), entry)
    codes = (entry.GetCategoryObject(), entry.GetTypeObject(), entry.GetTypeModifierObject())
    return [
        (code.GetCodingSchemeDesignator(), code.GetCodeValue(), code.GetCodeMeaning())
        if code is not None and code.GetCodeValue()
        else None
        for code in codes
    ]


def with_surfaces(outcome, folder):
    from HSAMSegmentLib.slicer.nodes.segmentations.surfaces import write_surfaces

    files = write_surfaces(outcome, folder, CancelToken())
    organs = tuple(replace(organ, surface_file=files.get(organ.label.value, "")) for organ in outcome.organs)
    return replace(outcome, organs=organs)


@pytest.mark.parametrize("ijk_to_ras", [OBLIQUE, LEFT_HANDED], ids=["oblique", "left-handed"])
def test_a_surface_of_the_worker_is_the_one_slicer_would_make(bridge, tmp_path, ijk_to_ras):
    import vtk

    volume = add_volume(ijk_to_ras)
    outcome = with_surfaces(make_outcome(blocks(), volume, tmp_path), tmp_path)
    node = bridge.create_segmentation(volume, "Organs")
    bridge.write_outcome(outcome, volume, node)
    ours = vtk.vtkPolyData()
    ours.DeepCopy(node.GetSegmentation().GetSegment("liver").GetRepresentation(bridge.SURFACE))
    node.RemoveClosedSurfaceRepresentation()
    node.CreateClosedSurfaceRepresentation()
    theirs = node.GetSegmentation().GetSegment("liver").GetRepresentation(bridge.SURFACE)
    assert np.allclose(ours.GetBounds(), theirs.GetBounds(), atol=0.05)
    volumes = []
    for surface in (ours, theirs):
        properties = vtk.vtkMassProperties()
        properties.SetInputData(surface)
        volumes.append(properties.GetVolume())
    assert volumes[0] == pytest.approx(volumes[1], rel=0.01)
    assert points_outward(ours)


def points_outward(surface):
    center = np.asarray(surface.GetCenter())
    normals = surface.GetPointData().GetNormals()
    dots = [
        np.dot(normals.GetTuple3(index), np.asarray(surface.GetPoint(index)) - center)
        for index in range(surface.GetNumberOfPoints())
    ]
    return np.mean(np.asarray(dots) > 0) > 0.9


def test_shown_surfaces_follow_a_second_run(bridge, tmp_path):
    volume, labels = add_volume(), blocks()
    node = bridge.create_segmentation(volume, "Organs")
    bridge.write_outcome(make_outcome(labels, volume, tmp_path), volume, node)
    node.CreateClosedSurfaceRepresentation()
    moved = np.roll(labels, 1, axis=0)
    bridge.write_outcome(make_outcome(moved, volume, tmp_path), volume, node)
    bounds = node.GetSegmentation().GetSegment("liver").GetRepresentation(bridge.SURFACE).GetBounds()
    assert bounds[4:] == pytest.approx((2.5, 6.5), abs=0.5)


def test_nothing_found_leaves_an_empty_segmentation(bridge, tmp_path):
    volume = add_volume()
    node = bridge.create_segmentation(volume, "Organs")
    bridge.write_outcome(make_outcome(np.zeros(SHAPE, np.uint8), volume, tmp_path), volume, node)
    assert node.GetSegmentation().GetNumberOfSegments() == 0


def test_a_segmentation_that_holds_only_an_empty_organ_gets_the_voxels_of_the_others(bridge, tmp_path):
    import slicer

    volume = add_volume()
    node = bridge.create_segmentation(volume, "Organs")
    node.GetSegmentation().AddEmptySegment("spleen", "Spleen")
    bridge.write_outcome(make_outcome(blocks(), volume, tmp_path), volume, node)
    found = slicer.util.arrayFromSegmentBinaryLabelmap(node, "liver", volume)
    assert np.array_equal(found > 0, blocks() == 1)
