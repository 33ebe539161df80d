"""DICOM series become volumes in their place, and what forms no volume is refused with a reason."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from dicom_files import change, write_frames, write_series, write_slice
from grids_of_tests import geometry_with, oblique_geometry
from pydicom.uid import SecondaryCaptureImageStorage

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.io.volume_files import list_series, read_volume
from HSAMSegmentLib.labels.grids import same_grid

SIZE = (6, 5, 8)


@pytest.fixture
def grid():
    return oblique_geometry(size=SIZE)


@pytest.fixture
def scan(grid):
    return np.random.default_rng(0).integers(-1000, 1000, grid.shape).astype(np.int16)


def test_a_series_is_read_in_the_order_of_its_places(tmp_path, scan, grid):
    write_series(tmp_path / "ct", scan, grid, SeriesDescription="Abdomen")
    volume = read_volume(tmp_path / "ct")
    np.testing.assert_array_equal(volume.array, scan)
    np.testing.assert_allclose(volume.geometry.ijk_to_lps, grid.ijk_to_lps, rtol=0, atol=1e-5)
    assert (volume.name, volume.modality, volume.notes) == ("Abdomen", "CT", ())


def test_slices_numbered_from_the_head_down_are_the_same_volume(tmp_path, scan, grid):
    downwards = replace(
        grid,
        origin_mm=tuple((grid.ijk_to_lps @ [0, 0, SIZE[2] - 1, 1])[:3]),
        direction=tuple((grid.direction_matrix @ np.diag([1, 1, -1])).ravel()),
    )
    write_series(tmp_path / "ct", scan[::-1], downwards)
    np.testing.assert_array_equal(read_volume(tmp_path / "ct").array, scan)


def test_slope_and_intercept_give_hounsfield_units(tmp_path, scan, grid):
    write_series(tmp_path / "ct", scan, grid, RescaleSlope=2.0, RescaleIntercept=-1024.0, RescaleType="HU")
    np.testing.assert_array_equal(read_volume(tmp_path / "ct").array, 2.0 * scan - 1024.0)


def test_files_without_a_suffix_and_in_folders_below_are_found(tmp_path, scan, grid):
    for number, path in enumerate(write_series(tmp_path / "disc" / "A" / "B", scan, grid)):
        path.rename(path.parent / f"IM{number}")
    (tmp_path / "disc" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "disc" / "readme.txt").write_text("viewer")
    np.testing.assert_array_equal(read_volume(tmp_path / "disc").array, scan)


def test_one_file_stands_for_its_series(tmp_path, scan, grid):
    paths = write_series(tmp_path, scan, grid)
    write_series(tmp_path, scan[:2], grid, name="other", uid="9.9")
    volume = read_volume(paths[3])
    np.testing.assert_array_equal(volume.array, scan)
    assert "all 8 files" in " ".join(volume.notes)


def test_a_single_slice_is_a_volume_with_its_thickness(tmp_path, scan, grid):
    path = write_slice(tmp_path / "one.dcm", scan[2], grid.origin_mm, grid.direction_matrix, SliceThickness=6.5)
    for source in (path, tmp_path):
        volume = read_volume(source)
        np.testing.assert_array_equal(volume.array, scan[2:3])
        expected = replace(grid, size=(*SIZE[:2], 1), spacing_mm=(*grid.spacing_mm[:2], 6.5))
        assert same_grid(volume.geometry, expected)
        np.testing.assert_allclose(volume.geometry.direction, grid.direction, atol=1e-6)


def test_several_series_are_named_and_one_can_be_asked_for(tmp_path, scan, grid):
    write_series(tmp_path / "a", scan, grid, uid="1.1", SeriesNumber=3, SeriesDescription="Arterial")
    write_series(tmp_path / "b", scan + 1, grid, uid="1.2", SeriesNumber=5, SeriesDescription="Portal venous")
    with pytest.raises(VolumeError, match=r'series 3 "Arterial" \(CT, 8 slices\), series 5 "Portal venous"'):
        read_volume(tmp_path)
    for wanted in ("1.2", "5", "portal venous"):
        np.testing.assert_array_equal(read_volume(tmp_path, series=wanted).array, scan + 1)
    with pytest.raises(VolumeError, match='no series "7"'):
        read_volume(tmp_path, series="7")
    assert [(item.id, item.number, item.slice_count) for item in list_series(tmp_path)] == [
        ("1.1", "3", 8),
        ("1.2", "5", 8),
    ]


def test_a_localizer_does_not_stand_in_the_way(tmp_path, scan, grid):
    write_series(tmp_path, scan, grid, uid="1.1", SeriesNumber=3)
    coronal = geometry_with(np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]), size=SIZE)
    scouts = scan[:3]
    write_series(tmp_path, scouts, coronal, name="scout", uid="1.0", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    np.testing.assert_array_equal(read_volume(tmp_path).array, scan)
    assert [item.is_localizer for item in list_series(tmp_path)] == [False, True]


def test_scouts_inside_of_the_series_are_told_from_its_slices(tmp_path, scan, grid):
    write_series(tmp_path, scan, grid)
    coronal = geometry_with(np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]), size=SIZE)
    write_series(tmp_path, scan[:1], coronal, name="scout")
    np.testing.assert_array_equal(read_volume(tmp_path).array, scan)


def test_images_of_another_size_are_a_volume_of_their_own(tmp_path, scan, grid):
    write_series(tmp_path, scan, grid)
    write_series(tmp_path, scan[:, :4, :4], grid, name="small")
    assert [item.slice_count for item in list_series(tmp_path)] == [8, 8]
    with pytest.raises(VolumeError, match="several series"):
        read_volume(tmp_path)


def test_echoes_of_one_series_are_volumes_of_their_own(tmp_path, scan, grid):
    write_series(tmp_path, scan, grid, name="first", modality="MR", EchoTime=4.6, EchoNumbers=1)
    write_series(tmp_path, scan + 1, grid, name="second", modality="MR", EchoTime=9.2, EchoNumbers=2)
    found = list_series(tmp_path)
    assert [item.id for item in found] == ["1.2.3", "1.2.3/2"]
    assert {item.description for item in found} == {"(echo 1)", "(echo 2)"}
    volume = read_volume(tmp_path, series="(echo 2)")
    np.testing.assert_array_equal(volume.array, scan + 1)
    assert volume.modality == "MR"


def test_copies_of_files_are_not_taken_twice(tmp_path, scan, grid):
    for path in write_series(tmp_path / "a", scan, grid)[:3]:
        shutil.copy(path, path.parent / f"copy of {path.name}")
    np.testing.assert_array_equal(read_volume(tmp_path / "a").array, scan)


def test_different_images_at_one_place_are_refused(tmp_path, scan, grid):
    write_series(tmp_path, scan, grid)
    write_series(tmp_path, scan[:1] + 1, grid, name="again")
    with pytest.raises(VolumeError, match=r"1 slices .* same place"):
        read_volume(tmp_path)


def test_missing_slices_are_counted_and_refused(tmp_path, scan, grid):
    paths = write_series(tmp_path, scan, grid)
    paths[3].unlink()
    paths[4].unlink()
    with pytest.raises(VolumeError, match=r"2 slices .* missing"):
        read_volume(tmp_path)


@pytest.mark.parametrize(("shift", "outcome"), [(0.05, "fine"), (0.3, "note"), (1.5, "refused")])
def test_uneven_distances_are_passed_told_or_refused_by_how_uneven_they_are(tmp_path, scan, grid, shift, outcome):
    paths = write_series(tmp_path, scan, grid)
    position = grid.ijk_to_lps @ [0, 0, 4 + shift / grid.spacing_mm[2], 1]
    change(paths[4], ImagePositionPatient=[float(value) for value in position[:3]])
    if outcome == "refused":
        with pytest.raises(VolumeError, match="unevenly spaced"):
            read_volume(tmp_path)
        return
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, scan)
    assert ("distances of slices vary" in " ".join(volume.notes)) == (outcome == "note")


def test_a_tilted_gantry_keeps_its_grid_and_is_told(tmp_path, scan):
    direction = np.eye(3)
    direction[:, 2] = [0.0, np.sin(np.radians(15)), np.cos(np.radians(15))]
    grid = geometry_with(direction, size=SIZE)
    write_series(tmp_path, scan, grid)
    volume = read_volume(tmp_path)
    np.testing.assert_allclose(volume.geometry.ijk_to_lps, grid.ijk_to_lps, rtol=0, atol=1e-5)
    assert "15.0 degrees" in " ".join(volume.notes)
    sheet = np.prod(grid.spacing_mm[:2])
    assert volume.geometry.voxel_volume_ml == pytest.approx(sheet * 5.3 * np.cos(np.radians(15)) / 1000)


def _positions(grid, places):
    return [(grid.ijk_to_lps @ [0, 0, place, 1])[:3] for place in places]


@pytest.mark.parametrize("places", [range(8), range(7, -1, -1)])
@pytest.mark.parametrize("implicit", [False, True])
def test_an_enhanced_file_of_even_frames_is_a_volume_in_its_place(tmp_path, scan, grid, places, implicit):
    positions = _positions(grid, places)
    path = write_frames(tmp_path / "multi.dcm", scan, positions, grid.direction_matrix, implicit=implicit)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, scan)
    ends = volume.geometry.ijk_to_lps @ np.array([[0, 0, 0, 1], [0, 0, 7, 1], [1, 0, 0, 1], [0, 1, 0, 1]]).T
    expected = grid.ijk_to_lps @ np.array([[0, 0, places[0], 1], [0, 0, places[-1], 1]]).T
    np.testing.assert_allclose(ends[:, :2], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(volume.geometry.ijk_to_lps[:, :2], grid.ijk_to_lps[:, :2], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "places",
    [(0, 2, 1, 3, 4, 5, 6, 7), (0, 1, 2, 4, 5, 6, 7, 8), (0, 1, 2, 3, 0, 1, 2, 3), (0, 0, 0, 0, 0, 0, 0, 0)],
)
def test_enhanced_frames_that_are_no_even_stack_are_refused(tmp_path, scan, grid, places):
    path = write_frames(tmp_path / "multi.dcm", scan, _positions(grid, places), grid.direction_matrix)
    with pytest.raises(VolumeError, match=r"not an even stack.*dcm2niix"):
        read_volume(path)


def test_frames_that_do_not_say_where_they_are_are_refused(tmp_path, scan, grid):
    path = write_slice(tmp_path / "multi.dcm", scan[0], grid.origin_mm, grid.direction_matrix)
    data = pydicom.dcmread(path)
    data.NumberOfFrames, data.PixelData = len(scan), scan.astype("<i2").tobytes()
    data.save_as(path)
    with pytest.raises(VolumeError, match=r"8 frames.*where each of them is.*dcm2niix"):
        read_volume(path)


def test_every_frame_is_scaled_by_what_it_says_itself(tmp_path, scan, grid):
    positions, slopes = _positions(grid, range(8)), [1.0] * 7 + [2.5]
    path = write_frames(tmp_path / "multi.dcm", scan, positions, grid.direction_matrix, slopes=slopes)
    np.testing.assert_allclose(read_volume(path).array, scan * np.array(slopes)[:, np.newaxis, np.newaxis])


@pytest.mark.parametrize(("shift_mm", "outcome"), [(0.02, "fine"), (0.2, "note"), (20.0, "refused")])
def test_slices_beside_the_line_of_the_others_are_passed_told_or_refused(tmp_path, scan, grid, shift_mm, outcome):
    paths = write_series(tmp_path, scan, grid)
    position = grid.ijk_to_lps @ [shift_mm / grid.spacing_mm[0], 0, 4, 1]
    change(paths[4], ImagePositionPatient=[float(value) for value in position[:3]])
    if outcome == "refused":
        with pytest.raises(VolumeError, match=r"do not line up .* 20\.00 mm"):
            read_volume(tmp_path)
        return
    assert ("shifted sideways" in " ".join(read_volume(tmp_path).notes)) == (outcome == "note")


def test_slices_of_another_pixel_spacing_are_a_volume_of_their_own(tmp_path, scan, grid):
    paths = write_series(tmp_path, scan, grid)
    for path in paths[:3]:
        change(path, PixelSpacing=[0.9, 0.9])
    assert [item.slice_count for item in list_series(tmp_path)] == [5, 3]
    np.testing.assert_array_equal(read_volume(paths[7]).array, scan[3:])


def test_slices_with_scales_of_their_own_keep_their_fractions(tmp_path, scan, grid):
    paths = write_series(tmp_path, scan, grid, RescaleSlope=1.0, RescaleIntercept=0.0)
    slopes = np.array([1.0, *np.linspace(0.25, 3.75, 7)])
    for path, slope in zip(paths[1:], slopes[1:]):
        change(path, RescaleSlope=float(slope))
    np.testing.assert_allclose(read_volume(tmp_path).array, scan * slopes[:, np.newaxis, np.newaxis], rtol=1e-6)


@pytest.mark.parametrize("modality", ["SEG", "PR", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "KO"])
def test_objects_that_are_no_scans_are_left_out(tmp_path, scan, grid, modality):
    write_series(tmp_path / "ct", scan, grid, uid="1.1")
    others = write_series(tmp_path / "other", scan, grid, uid="1.2", modality=modality)
    assert [item.id for item in list_series(tmp_path)] == ["1.1"]
    np.testing.assert_array_equal(read_volume(tmp_path).array, scan)
    with pytest.raises(VolumeError, match=f"not a scan.*{modality}"):
        read_volume(others[0])
    with pytest.raises(VolumeError, match="no DICOM image"):
        list_series(tmp_path / "other")


def test_a_dose_report_beside_a_scan_is_left_out(tmp_path, scan, grid):
    write_series(tmp_path / "ct", scan, grid, uid="1.1")
    report = write_slice(
        tmp_path / "dose.dcm", scan[0], grid.origin_mm, grid.direction_matrix, uid="1.2",
        ImagePositionPatient=None, ImageOrientationPatient=None, SOPClassUID=SecondaryCaptureImageStorage,
        SeriesDescription="Dose Report",
    )  # fmt: skip
    assert [item.id for item in list_series(tmp_path)] == ["1.1"]
    np.testing.assert_array_equal(read_volume(report).array, scan[:1])


def test_slices_without_a_place_are_refused(tmp_path, scan, grid):
    write_series(tmp_path, scan, grid, ImagePositionPatient=None)
    with pytest.raises(VolumeError, match="where"):
        read_volume(tmp_path)


def test_a_slice_without_a_place_says_so(tmp_path, scan, grid):
    path = write_slice(
        tmp_path / "one.dcm", scan[0], grid.origin_mm, grid.direction_matrix,
        ImagePositionPatient=None, ImageOrientationPatient=None,
    )  # fmt: skip
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, scan[:1])
    assert "not sure" in " ".join(volume.notes)


def test_a_dicom_file_without_an_image_is_refused(tmp_path, scan, grid):
    path = write_slice(tmp_path / "report.dcm", scan[0], grid.origin_mm, grid.direction_matrix, PixelData=None)
    with pytest.raises(VolumeError, match=r"report\.dcm"):
        read_volume(path)


def test_a_slice_that_is_cut_off_is_refused(tmp_path, scan, grid):
    paths = write_series(tmp_path, scan, grid)
    paths[2].write_bytes(paths[2].read_bytes()[:-30])
    with pytest.raises(VolumeError) as refusal:
        read_volume(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_folder_that_is_missing_or_has_no_image_is_refused(tmp_path):
    with pytest.raises(VolumeError, match="no DICOM image"):
        read_volume(tmp_path)
    with pytest.raises(VolumeError, match="There is no folder"):
        list_series(tmp_path / "nothing")
