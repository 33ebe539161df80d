"""Slices come in one orientation, however the file stores the scan, and go back to exactly where they were."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from grids_of_tests import array_and_geometry, geometry_with, oblique_geometry, reorientations, rotation

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.orientation import PLANES, slice_axis, slice_frame, to_slices
from HSAMSegmentLib.images.sitk_images import image_of
from HSAMSegmentLib.labels.segmentation_files import read_segmentation

LEFT, BACK, HEAD = (1, 0, 0), (0, 1, 0), (0, 0, 1)
RIGHT, FEET = (-1, 0, 0), (0, 0, -1)

DIRECTIONS = {
    "axial": np.eye(3),
    "oblique": rotation(20, 30, 40),
    "steep": rotation(-52, 71, 133),
    "short axis of a heart": rotation(55, 0, 48),
    "45 degrees in the plane": rotation(0, 0, 45),
    "45 degrees out of the plane": rotation(45, 0, 0),
    "45 degrees both": rotation(45, 0, 45),
}


def _numbered(geometry: Geometry) -> sitk.Image:
    return image_of(np.arange(np.prod(geometry.size), dtype=np.int32).reshape(geometry.shape), geometry)


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("left_handed", [False, True])
@pytest.mark.parametrize("spacing_mm", [(0.7, 1.1, 5.3), (1.0, 1.0, 1.0)])
def test_all_48_copies_of_a_scan_give_the_same_stack_and_go_back_exactly(name, left_handed, spacing_mm):
    direction = DIRECTIONS[name] @ np.diag([1, 1, -1 if left_handed else 1])
    scan = _numbered(geometry_with(direction, spacing_mm=spacing_mm))
    copies = [array_and_geometry(copy) for copy in reorientations(scan)]
    assert len(copies) == 48
    for plane in PLANES:
        first, first_frame = to_slices(*copies[0], plane)
        for array, geometry in copies:
            stack, frame = to_slices(array, geometry, plane)
            assert np.array_equal(stack, first)
            assert frame.spacing_mm == first_frame.spacing_mm
            assert np.abs(np.subtract(frame.directions, first_frame.directions)).max() < 1e-12
            assert np.array_equal(frame.to_volume(stack), array)


def test_the_stack_is_a_view_and_the_volume_comes_back_contiguous():
    array, geometry = array_and_geometry(_numbered(oblique_geometry(left_handed=True)))
    stack, frame = to_slices(array, geometry)
    assert np.shares_memory(stack, array)
    back = frame.to_volume(np.ascontiguousarray(stack))
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(
    ("plane", "slices", "rows", "columns"),
    [("axial", HEAD, BACK, LEFT), ("coronal", BACK, FEET, LEFT), ("sagittal", RIGHT, FEET, BACK)],
)
def test_planes_are_shown_as_a_radiologist_expects(plane, slices, rows, columns):
    for copy in reorientations(_numbered(geometry_with(np.eye(3)))):
        _, frame = to_slices(*array_and_geometry(copy), plane)
        np.testing.assert_allclose(frame.directions, (slices, rows, columns), atol=1e-12)


@pytest.mark.parametrize("tilt", [-40, -20, 0, 20, 40])
@pytest.mark.parametrize("turn", [-40, -20, 0, 20, 40])
def test_a_tilted_axial_scan_still_counts_as_axial(tilt, turn):
    for x_degrees, y_degrees in ((tilt, 0), (0, tilt)):
        frame = slice_frame(geometry_with(rotation(x_degrees, y_degrees, 0)))
        assert np.dot(frame.directions[0], HEAD) > 0.7
        assert np.dot(frame.directions[2], LEFT) > 0.7
    frame = slice_frame(geometry_with(rotation(0, 0, turn)))
    assert np.dot(frame.directions[1], BACK) > 0.7


def test_neighboring_angles_are_never_mirrored():
    for seed in range(200):
        angles = np.random.default_rng(seed).uniform(-180, 180, 3)
        frame = slice_frame(geometry_with(rotation(*angles)))
        slices, rows, columns = np.array(frame.directions)
        np.testing.assert_allclose(np.cross(columns, rows), slices, atol=1e-9)


@pytest.mark.parametrize(
    ("size", "spacing_mm", "axis"),
    [
        ((256, 256, 30), (1.25, 1.25, 7.7), 2),
        ((30, 256, 256), (7.7, 1.25, 1.25), 0),
        ((256, 30, 256), (1.25, 5.0, 1.25), 1),
        ((100, 100, 100), (1.0, 1.0, 1.0), 2),
        ((100, 100, 100), (1.1, 1.0, 1.0), 2),
        ((1, 100, 100), (0.5, 1.0, 4.0), 0),
        ((100, 1, 1), (0.5, 1.0, 4.0), 2),
    ],
)
def test_the_acquisition_axis_is_the_flat_one_or_that_of_clearly_the_largest_spacing_or_axial(size, spacing_mm, axis):
    assert slice_axis(Geometry(size, spacing_mm)) == axis


def test_an_isotropic_scan_stored_sagittally_is_cut_axially():
    sagittal = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=float)
    assert slice_axis(geometry_with(sagittal, spacing_mm=(1.0, 1.0, 1.0))) == 1


def test_numbers_of_slices_lead_back_to_the_volume():
    array, geometry = array_and_geometry(_numbered(geometry_with(np.diag([1.0, 1.0, -1.0]))))
    stack, frame = to_slices(array, geometry)
    for index in range(len(stack)):
        np.testing.assert_array_equal(stack[index], array[frame.volume_slice_index(index)])
    assert frame.volume_slice_index(0) == len(array) - 1


def test_spacing_and_extent_follow_the_axes():
    geometry = Geometry((30, 200, 100), (7.0, 0.5, 0.8))
    frame = slice_frame(geometry)
    assert frame.slice_spacing_mm == 7.0
    assert sorted(frame.pixel_spacing_mm) == [0.5, 0.8]
    assert sorted(frame.field_of_view_mm) == pytest.approx([80.0, 100.0])


def test_an_unknown_plane_is_refused_with_the_known_ones():
    with pytest.raises(RequestError, match="coronal"):
        slice_frame(oblique_geometry(), "oblique")


def test_an_array_of_another_shape_is_refused():
    frame = slice_frame(oblique_geometry())
    with pytest.raises(ValueError, match="shape"):
        frame.to_stack(np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="shape"):
        frame.to_volume(np.zeros((2, 2, 2)))


def _centroid_mm(stack, value, frame):
    return np.array([axis.mean() for axis in np.nonzero(stack == value)]) * frame.spacing_mm


def test_short_axis_scans_of_all_patients_show_the_heart_the_same_way_round(real_data_folder):
    angles = []
    for path in sorted((real_data_folder / "cmr_bssfp" / "labels").glob("*.nii.gz")):
        labels = read_segmentation(path)
        stack, frame = to_slices(labels.array, labels.geometry)
        slices, rows, columns = _centroid_mm(stack, 3, frame) - _centroid_mm(stack, 2, frame)
        angles.append(np.degrees(np.arctan2(rows, columns)) % 360)
        assert slices > 0
    assert len(angles) == 25
    # The right ventricle is on the left of the picture, within 35 degrees of the mean.
    assert 135 < min(angles)
    assert max(angles) < 195


def test_abdominal_scans_show_the_liver_on_the_left_of_the_picture(data_folder):
    paths = sorted((data_folder / "chaos_t2" / "labels").glob("*.nii.gz"))
    assert paths
    for path in [*paths, data_folder / "ct_totalsegmentator" / "labels" / "ct_example_30.nii.gz"]:
        labels = read_segmentation(path)
        stack, frame = to_slices(labels.array, labels.geometry)
        liver, spleen, right, left = (_centroid_mm(stack, value, frame) for value in (1, 4, 2, 3))
        assert liver[2] < spleen[2]
        assert right[2] < left[2]
        assert right[1] > liver[1]


@pytest.mark.parametrize("name", ["cmr_bssfp/labels/cmr_bssfp_31.nii.gz", "chaos_t2/labels/chaos_t2_39.nii.gz"])
def test_flipped_and_permuted_copies_of_a_real_scan_give_the_same_stack(data_folder, name):
    labels = read_segmentation(data_folder / name)
    expected, _ = to_slices(labels.array, labels.geometry)
    for copy in reorientations(image_of(labels.array, labels.geometry)):
        stack, _ = to_slices(*array_and_geometry(copy))
        np.testing.assert_array_equal(stack, expected)
