from __future__ import annotations

import numpy as np
import pytest

from HSAMSegmentLib.errors import RequestError

pytestmark = pytest.mark.host

OBLIQUE = np.array(
    [[0.8 * 1.5, -0.6 * 2.0, 0.0, 12.0], [0.6 * 1.5, 0.8 * 2.0, 0.0, -7.0], [0.0, 0.0, 3.0, 40.0], [0, 0, 0, 1.0]]
)
LEFT_HANDED = np.diag([1.0, 1.0, -2.5, 1.0])


@pytest.fixture
def bridge(scene):
    from HSAMSegmentLib.slicer.nodes import volumes as volume_bridge

    return volume_bridge


def add_volume(ijk_to_ras=None, shape=(6, 7, 8), name="Scan", **options):
    import slicer

    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    return slicer.util.addVolumeFromArray(array, ijk_to_ras, name, **options)


def add_transform(scene, matrix):
    import slicer

    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    slicer.util.updateTransformMatrixFromArray(node, matrix)
    return node


@pytest.mark.parametrize("ijk_to_ras", [np.eye(4), OBLIQUE, LEFT_HANDED], ids=["identity", "oblique", "left-handed"])
def test_the_geometry_places_every_voxel_where_the_node_does(bridge, ijk_to_ras):
    volume = add_volume(ijk_to_ras)
    geometry = bridge.volume_geometry(volume)
    assert geometry.size == (8, 7, 6)
    assert np.allclose(geometry.ijk_to_ras, ijk_to_ras, atol=1e-12)
    assert bridge.volume_array(volume)[5, 6, 7] == 335


def test_the_geometry_is_that_of_the_file_that_was_loaded(bridge, data_folder):
    import SimpleITK
    import slicer

    path = next((data_folder / "cmr_bssfp" / "images").glob("*.nii.gz"))
    image, node = SimpleITK.ReadImage(str(path)), slicer.util.loadVolume(str(path), {})
    geometry = bridge.volume_geometry(node)
    corners = [(0, 0, 0), tuple(size - 1 for size in image.GetSize())]
    from_file = {tuple(np.round(image.TransformIndexToPhysicalPoint(corner), 3)) for corner in corners}
    from_node = {tuple(np.round((geometry.ijk_to_lps @ (*corner, 1.0))[:3], 3)) for corner in corners}
    assert from_node == from_file


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda scene: None, "Choose a scan"),
        (lambda scene: scene.AddNewNodeByClass("vtkMRMLModelNode", "Skin"), "no volume of gray values"),
        (lambda scene: scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty"), "has no image data"),
        (lambda scene: add_volume(nodeClassName="vtkMRMLLabelMapVolumeNode"), "is a label map"),
        (lambda scene: add_volume(shape=(4, 5, 6, 3), nodeClassName="vtkMRMLVectorVolumeNode"), "3 values per voxel"),
    ],
    ids=["nothing", "model", "empty", "label map", "vector"],
)
def test_what_is_no_scan_is_refused_in_words(bridge, scene, make, words):
    node = make(scene)
    assert words in bridge.volume_problem(node)
    with pytest.raises(RequestError, match=words):
        bridge.volume_array(node)


def test_a_scan_is_no_problem(bridge):
    assert bridge.volume_problem(add_volume()) == ""


def add_roi(scene, center, size):
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region")
    roi.SetCenter(center)
    roi.SetSize(size)
    return roi


def test_a_region_covers_the_voxels_whose_centers_it_contains(bridge, scene):
    volume = add_volume(np.diag([-2.0, -1.0, 3.0, 1.0]))
    roi = add_roi(scene, (-6.0, -3.0, 6.0), (4.2, 2.0, 5.9))
    assert bridge.roi_bounds(roi, volume) == (2, 5, 2, 5, 2, 3)


def test_a_region_follows_the_transforms_of_region_and_scan(bridge, scene):
    shift = np.eye(4)
    shift[:3, 3] = (100.0, -50.0, 25.0)
    volume, roi = add_volume(OBLIQUE), add_roi(scene, (12.0, -7.0, 46.0), (1.0, 1.0, 1.0))
    before = bridge.roi_bounds(roi, volume)
    transform = add_transform(scene, shift)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(RequestError, match="does not touch"):
        bridge.roi_bounds(roi, volume)
    roi.SetAndObserveTransformNodeID(transform.GetID())
    assert bridge.roi_bounds(roi, volume) == before


def test_a_region_is_clipped_to_the_scan(bridge, scene):
    volume = add_volume()
    assert bridge.roi_bounds(add_roi(scene, (0, 0, 0), (500, 500, 500)), volume) == (0, 8, 0, 7, 0, 6)


def test_a_voxel_is_found_in_the_world_through_the_parent_transform(bridge, scene):
    volume = add_volume(OBLIQUE)
    turn = np.array([[0.0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])
    volume.SetAndObserveTransformNodeID(add_transform(scene, turn).GetID())
    assert np.allclose(bridge.ijk_to_world(volume, (1, 2, 3)), (turn @ OBLIQUE @ (1, 2, 3, 1))[:3])


def test_the_dicom_series_of_a_volume_is_known_by_its_place_in_the_hierarchy(bridge, scene):
    import slicer

    volume = add_volume()
    assert bridge.dicom_series(volume) == ""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), volume)
    assert bridge.dicom_series(volume) == ""
    hierarchy.SetItemUID(item, "DICOM", "1.2.840.1")
    assert bridge.dicom_series(volume) == "1.2.840.1"
