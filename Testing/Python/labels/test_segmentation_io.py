"""Segmentations keep voxels, place, names, colors and codes on their way through files, and nothing else is lost."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from grids_of_tests import array_and_geometry, geometry_with, oblique_geometry, reorientations

from HSAMSegmentLib.errors import OutputError, VolumeError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.sitk_images import image_of
from HSAMSegmentLib.labels.grids import resample_labels, same_grid
from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.segmentation_files import (
    SEGMENTATION_OUTPUT_SUFFIXES,
    read_segmentation,
    require_geometry_fits,
    write_segmentation,
)
from HSAMSegmentLib.labels.terminology import label_set_of, terminology_tag


def _segmentation(geometry: Geometry, names=None) -> Segmentation:
    random = np.random.default_rng(3)
    labels = label_set_of(names or {1: "liver", 2: "right kidney", 5: "Läsion 肝 A|B"})
    values = [0, *(label.value for label in labels)]
    return Segmentation(random.choice(values, size=geometry.shape).astype(np.uint8), geometry, labels, "case")


@pytest.fixture
def segmentation() -> Segmentation:
    return _segmentation(oblique_geometry(left_handed=True))


@pytest.mark.parametrize("suffix", SEGMENTATION_OUTPUT_SUFFIXES)
@pytest.mark.parametrize("left_handed", [False, True])
def test_voxels_place_names_colors_and_codes_survive_every_format(tmp_path, suffix, left_handed):
    written = _segmentation(oblique_geometry(left_handed=left_handed))
    write_segmentation(written, tmp_path / f"case{suffix}")
    read = read_segmentation(tmp_path / f"case{suffix}")
    np.testing.assert_array_equal(read.array, written.array)
    assert read.array.dtype == np.uint8
    # NIfTI keeps directions in 32 bits.
    tolerance = 1e-5 if ".nii" in suffix else 1e-12
    np.testing.assert_allclose(read.geometry.ijk_to_lps, written.geometry.ijk_to_lps, rtol=0, atol=tolerance)
    assert same_grid(read.geometry, written.geometry)
    assert [label.name for label in read.labels] == [label.name for label in written.labels]
    assert [label.terminology for label in read.labels] == [label.terminology for label in written.labels]
    for ours, theirs in zip(read.labels, written.labels):
        np.testing.assert_allclose(ours.color, theirs.color, atol=1e-5)


@pytest.mark.parametrize("suffix", SEGMENTATION_OUTPUT_SUFFIXES)
def test_all_48_orientations_come_back_as_they_were(tmp_path, segmentation, suffix):
    for copy in reorientations(image_of(segmentation.array, segmentation.geometry)):
        array, geometry = array_and_geometry(copy)
        write_segmentation(
            replace(segmentation, array=array, geometry=geometry), tmp_path / f"case{suffix}", overwrite=True
        )
        read = read_segmentation(tmp_path / f"case{suffix}")
        np.testing.assert_array_equal(read.array, array)
        np.testing.assert_allclose(read.geometry.ijk_to_lps, geometry.ijk_to_lps, rtol=0, atol=1e-5)


@pytest.mark.parametrize("suffix", SEGMENTATION_OUTPUT_SUFFIXES)
def test_a_single_slice_stays_a_volume_in_its_place(tmp_path, suffix):
    written = _segmentation(replace(oblique_geometry(), size=(6, 5, 1)))
    write_segmentation(written, tmp_path / f"slice{suffix}")
    read = read_segmentation(tmp_path / f"slice{suffix}")
    assert same_grid(read.geometry, written.geometry)
    np.testing.assert_array_equal(read.array, written.array)


def _tilted_geometry(degrees: float):
    direction = np.eye(3)
    direction[:, 2] = [0.0, np.sin(np.radians(degrees)), np.cos(np.radians(degrees))]
    return geometry_with(direction)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_tilted_grid_is_refused_by_nifti_before_anything_is_written(tmp_path, suffix):
    path = tmp_path / f"case{suffix}"
    with pytest.raises(OutputError, match=r"15\.0 degrees.*\.seg\.nrrd"):
        write_segmentation(_segmentation(_tilted_geometry(15)), path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match="tilted gantry"):
        require_geometry_fits(path, _tilted_geometry(15))
    require_geometry_fits(path, _tilted_geometry(0.001))


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".mha"])
def test_a_tilted_grid_is_kept_by_the_formats_that_have_a_place_for_it(tmp_path, suffix):
    written = _segmentation(_tilted_geometry(15))
    write_segmentation(written, tmp_path / f"case{suffix}")
    assert same_grid(read_segmentation(tmp_path / f"case{suffix}").geometry, written.geometry)


def test_an_empty_segmentation_keeps_its_labels(tmp_path, segmentation):
    empty = replace(segmentation, array=np.zeros_like(segmentation.array))
    write_segmentation(empty, tmp_path / "empty.seg.nrrd")
    assert read_segmentation(tmp_path / "empty.seg.nrrd").labels == empty.labels


def test_an_existing_file_is_only_replaced_when_that_is_said(tmp_path, segmentation):
    path = tmp_path / "case.seg.nrrd"
    path.write_bytes(b"somebody's work")
    with pytest.raises(OutputError, match="exists already"):
        write_segmentation(segmentation, path)
    assert path.read_bytes() == b"somebody's work"
    write_segmentation(segmentation, path, overwrite=True)
    assert read_segmentation(path).labels == segmentation.labels


def test_existing_names_beside_a_label_map_are_not_replaced_either(tmp_path, segmentation):
    (tmp_path / "case.labels.json").write_text("somebody's work")
    with pytest.raises(OutputError, match="exists already"):
        write_segmentation(segmentation, tmp_path / "case.nii.gz")
    assert not (tmp_path / "case.nii.gz").exists()


@pytest.mark.parametrize("name", ["case.png", "case.stl", "case", "case.nii.bz2"])
def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path, segmentation, name):
    with pytest.raises(OutputError, match=r"\.seg\.nrrd"):
        write_segmentation(segmentation, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path, segmentation):
    with pytest.raises(OutputError, match="does not exist"):
        write_segmentation(segmentation, tmp_path / "nowhere" / "case.nii.gz")


@pytest.mark.parametrize("suffix", SEGMENTATION_OUTPUT_SUFFIXES)
def test_a_write_that_is_cut_short_leaves_the_older_file_and_nothing_else(tmp_path, suffix):
    resource = pytest.importorskip("resource", reason="this system has no limit on the size of files")
    large = _segmentation(Geometry((64, 64, 64)))
    path = tmp_path / f"case{suffix}"
    path.write_bytes(b"older")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=path.name):
            write_segmentation(large, path, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_without_permission_is_said(tmp_path, segmentation):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="permission"):
        write_segmentation(segmentation, tmp_path / "case.seg.nrrd")


def _layered_file(path, layers: np.ndarray, names: list[tuple[str, int, int]]) -> None:
    """A .seg.nrrd with several layers [k, j, i, layer]; of each segment name, layer, value."""
    image = sitk.GetImageFromArray(layers, isVector=True)
    for index, (name, layer, value) in enumerate(names):
        fields = {
            "ID": f"S{index}",
            "Name": name,
            "Layer": str(layer),
            "LabelValue": str(value),
            "Color": "0.1 0.2 0.3",
        }
        for key, text in fields.items():
            image.SetMetaData(f"Segment{index}_{key}", text)
    sitk.WriteImage(image, str(path))


def test_overlapping_segments_become_one_label_map_with_the_smaller_on_top(tmp_path):
    layers = np.zeros((4, 8, 8, 2), np.uint8)
    layers[1:3, 1:7, 1:7, 0] = 1
    layers[1:3, 3:5, 3:5, 1] = 1
    for names in ([("lesion", 1, 1), ("liver", 0, 1)], [("liver", 0, 1), ("lesion", 1, 1)]):
        _layered_file(tmp_path / "a.seg.nrrd", layers, names)
        read = read_segmentation(tmp_path / "a.seg.nrrd")
        values = {label.name: label.value for label in read.labels}
        assert sorted(values.values()) == [1, 2]
        assert np.count_nonzero(read.array == values["lesion"]) == 8
        assert np.count_nonzero(read.array == values["liver"]) == 72 - 8
        assert "overlap in 8 voxels" in " ".join(read.notes)


def test_segments_that_share_a_layer_keep_their_values_and_lose_what_no_segment_has(tmp_path):
    layer = np.zeros((3, 4, 5), np.uint8)
    layer[0], layer[1], layer[2] = 3, 7, 9
    image = sitk.GetImageFromArray(layer)
    for index, (name, value) in enumerate([("spleen", 7), ("left kidney", 3)]):
        for key, text in {"ID": name, "Name": name, "Layer": "0", "LabelValue": str(value)}.items():
            image.SetMetaData(f"Segment{index}_{key}", text)
    sitk.WriteImage(image, str(tmp_path / "a.seg.nrrd"))
    read = read_segmentation(tmp_path / "a.seg.nrrd")
    assert [(label.value, label.name) for label in read.labels] == [(3, "left kidney"), (7, "spleen")]
    assert np.unique(read.array).tolist() == [0, 3, 7]


def _write_plain(path, array) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def test_a_plain_label_map_takes_its_names_from_the_caller(tmp_path):
    array = np.zeros((3, 4, 5), np.int16)
    array[0], array[1] = 1, 2
    _write_plain(tmp_path / "a.nii.gz", array)
    read = read_segmentation(tmp_path / "a.nii.gz", names={1: "liver", 4: "spleen"})
    assert [(label.value, label.name) for label in read.labels] == [(1, "liver"), (2, "Label 2"), (4, "spleen")]
    assert read.labels.by_value(1).terminology is not None
    assert read.labels.by_value(2).terminology is None


def test_values_above_255_are_numbered_anew_and_told(tmp_path):
    array = np.zeros((3, 4, 5), np.int16)
    array[0], array[1], array[2] = 200, 500, 600
    _write_plain(tmp_path / "a.nii.gz", array)
    names = {200: "myocardium", 500: "left ventricle", 600: "right ventricle"}
    read = read_segmentation(tmp_path / "a.nii.gz", names=names)
    assert np.unique(read.array).tolist() == [1, 2, 3]
    assert [label.name for label in read.labels] == list(names.values())
    assert "500 as 2" in " ".join(read.notes)


def test_whole_numbers_in_a_float_file_are_labels(tmp_path):
    _write_plain(tmp_path / "a.nii.gz", np.full((3, 4, 5), 2.0, np.float32))
    assert read_segmentation(tmp_path / "a.nii.gz").array.max() == 2


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.full((3, 4, 5), 0.4, np.float32), "holds 0.4, which is not a whole number"),
        (np.full((3, 4, 5), np.nan, np.float32), "not finite"),
        (np.full((3, 4, 5), -1, np.int16), "holds the value -1"),
        (np.arange(600, dtype=np.int16).reshape(6, 10, 10), "599 different label values"),
    ],
)
def test_a_scan_given_as_labels_is_refused(tmp_path, array, reason):
    _write_plain(tmp_path / "a.nrrd", array)
    with pytest.raises(VolumeError, match=reason):
        read_segmentation(tmp_path / "a.nrrd")


def test_damaged_names_beside_a_label_map_are_not_passed_over(tmp_path, segmentation):
    write_segmentation(segmentation, tmp_path / "case.nii.gz")
    (tmp_path / "case.labels.json").write_text("{")
    with pytest.raises(VolumeError, match=r"case\.labels\.json"):
        read_segmentation(tmp_path / "case.nii.gz")


def test_real_labels_come_back_as_they_were(tmp_path, data_folder):
    for name in ("chaos_t2/labels/chaos_t2_39.nii.gz", "cmr_bssfp/labels/cmr_bssfp_22.nii.gz"):
        original = read_segmentation(data_folder / name)
        for suffix in (".seg.nrrd", ".nii.gz"):
            path = tmp_path / (original.name + suffix)
            write_segmentation(original, path)
            read = read_segmentation(path)
            np.testing.assert_array_equal(read.array, original.array)
            np.testing.assert_allclose(read.geometry.ijk_to_lps, original.geometry.ijk_to_lps, rtol=0, atol=1e-6)


def test_grids_are_compared_by_where_their_corners_are():
    grid = oblique_geometry()
    shifted = replace(grid, origin_mm=tuple(value + 1e-6 for value in grid.origin_mm))
    assert same_grid(grid, shifted)
    assert not same_grid(grid, replace(grid, origin_mm=(grid.origin_mm[0] + 0.5, *grid.origin_mm[1:])))
    assert not same_grid(grid, replace(grid, size=(grid.size[0] + 1, *grid.size[1:])))
    assert not same_grid(grid, replace(grid, direction=tuple(-value for value in grid.direction)))


def test_labels_resampled_to_a_flipped_copy_of_their_grid_are_the_flipped_labels(segmentation):
    image = image_of(segmentation.array, segmentation.geometry)
    flipped = sitk.Flip(sitk.PermuteAxes(image, (2, 0, 1)), (True, False, True), False)
    target = Geometry(flipped.GetSize(), flipped.GetSpacing(), flipped.GetOrigin(), flipped.GetDirection())
    moved = resample_labels(segmentation, target)
    np.testing.assert_array_equal(moved.array, sitk.GetArrayFromImage(flipped))
    np.testing.assert_array_equal(resample_labels(moved, segmentation.geometry).array, segmentation.array)


def test_labels_of_another_scan_are_refused(segmentation):
    elsewhere = replace(segmentation.geometry, origin_mm=(1000.0, 1000.0, 1000.0))
    with pytest.raises(VolumeError, match="do not overlap"):
        resample_labels(segmentation, elsewhere)


@pytest.mark.host
def test_slicer_opens_the_file_with_names_colors_codes_and_place(tmp_path, host, scene, segmentation):
    import slicer
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    write_segmentation(segmentation, tmp_path / "case.seg.nrrd")
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(scene)
    node = logic.LoadSegmentationFromFile(str(tmp_path / "case.seg.nrrd"), True, "case")
    loaded = node.GetSegmentation()
    assert loaded.GetNumberOfSegments() == len(segmentation.labels)
    for index, label in enumerate(segmentation.labels):
        _assert_same_segment(loaded.GetNthSegment(index), label)
        image = slicer.vtkOrientedImageData()
        node.GetBinaryLabelmapRepresentation(loaded.GetNthSegmentID(index), image)
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        to_ras = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
        extent = image.GetExtent()
        found = vtk_to_numpy(image.GetPointData().GetScalars()) != 0
        found = found.reshape(extent[5] - extent[4] + 1, extent[3] - extent[2] + 1, extent[1] - extent[0] + 1)
        voxels = np.argwhere(found)[:, ::-1] + [extent[0], extent[2], extent[4]]
        expected = np.argwhere(segmentation.array == label.value)[:, ::-1]
        ours = expected @ segmentation.geometry.ijk_to_ras[:3, :3].T + segmentation.geometry.ijk_to_ras[:3, 3]
        theirs = voxels @ to_ras[:3, :3].T + to_ras[:3, 3]
        np.testing.assert_allclose(_in_order(theirs), _in_order(ours), rtol=0, atol=1e-9)


@pytest.mark.host
def test_what_slicer_saves_is_read_with_names_and_codes(tmp_path, host, scene, segmentation):
    import slicer

    write_segmentation(segmentation, tmp_path / "case.seg.nrrd")
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(scene)
    node = logic.LoadSegmentationFromFile(str(tmp_path / "case.seg.nrrd"), True, "case")
    node.GetSegmentation().SeparateSegmentLabelmap(node.GetSegmentation().GetNthSegmentID(1))
    node.AddDefaultStorageNode()
    storage = node.GetStorageNode()
    storage.SetFileName(str(tmp_path / "saved.seg.nrrd"))
    assert storage.WriteData(node)
    read = resample_labels(read_segmentation(tmp_path / "saved.seg.nrrd"), segmentation.geometry)
    by_name = {label.name: label for label in read.labels}
    assert set(by_name) == {label.name for label in segmentation.labels}
    for label in segmentation.labels:
        assert by_name[label.name].terminology == label.terminology
        np.testing.assert_array_equal(read.array == by_name[label.name].value, segmentation.array == label.value)


def _assert_same_segment(segment, label: Label) -> None:
    import vtk

    assert segment.GetName() == label.name
    np.testing.assert_allclose(segment.GetColor(), label.color, atol=1e-5)
    tag = vtk.reference("")
    segment.GetTag(segment.GetTerminologyEntryTagName(), tag)
    if label.terminology is not None:
        assert str(tag) == terminology_tag(label.terminology)
    else:
        assert "^Tissue~" in str(tag)


def _in_order(points: np.ndarray) -> np.ndarray:
    rounded = np.round(points, 4)
    return points[np.lexsort(rounded.T)]


def test_a_label_set_with_one_name_twice_is_told_apart_when_read(tmp_path):
    labels = LabelSet((Label(1, "cyst", (1, 0, 0)), Label(2, "cyst", (0, 1, 0))))
    array = np.array([[[0, 1, 2]]], dtype=np.uint8)
    write_segmentation(Segmentation(array, Geometry((3, 1, 1)), labels), tmp_path / "a.seg.nrrd")
    assert [label.name for label in read_segmentation(tmp_path / "a.seg.nrrd").labels] == ["cyst", "cyst (2)"]
