"""Which DICOM files form a volume, how each volume is named, and the true cause where files form none."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_files import change, write_series
from grids_of_tests import geometry_with, oblique_geometry

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.io.scan_folder import find_scans
from HSAMSegmentLib.io.volume_files import list_series, read_volume

SIZE = (6, 5, 8)


@pytest.fixture
def grid():
    return oblique_geometry(size=SIZE)


@pytest.fixture
def scan(grid):
    return np.random.default_rng(0).integers(-1000, 1000, grid.shape).astype(np.int16)


@pytest.mark.parametrize("pattern", [lambda k: k % 2, lambda k: k > 3])
def test_directions_that_differ_in_their_last_digits_are_one_volume(tmp_path, scan, grid, pattern):
    sine = 0.125  # between two hundredths, where rounding would part them
    cosine = float(np.sqrt(1 - sine**2))
    tilted = geometry_with(np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]), size=SIZE)
    for k, path in enumerate(write_series(tmp_path, scan, tilted)):
        change(path, ImageOrientationPatient=[1, 0, 0, 0, cosine, sine + (1e-7 if pattern(k) else -1e-7)])
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, scan)
    assert volume.notes == ()


def test_pixel_spacings_that_differ_in_their_last_digits_are_one_volume(tmp_path, scan, grid):
    border = 700.5 / 1024
    for k, path in enumerate(write_series(tmp_path, scan, grid)):
        change(path, PixelSpacing=[1.1, border + (1e-7 if k % 2 else -1e-7)])
    np.testing.assert_array_equal(read_volume(tmp_path).array, scan)


def test_directions_that_vary_visibly_are_told(tmp_path, scan):
    grid = geometry_with(np.eye(3), size=SIZE)
    for k, path in enumerate(write_series(tmp_path, scan, grid)):
        change(path, ImageOrientationPatient=[np.cos(0.0005 * k), np.sin(0.0005 * k), 0, -np.sin(0.0005 * k), 1, 0])
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, scan)
    assert "orientations of slices vary" in " ".join(volume.notes)


def test_two_visits_with_one_number_and_description_can_each_be_named(tmp_path, scan, grid):
    same = {"SeriesNumber": 4, "SeriesDescription": "T2"}
    write_series(tmp_path, scan, grid, name="a", uid="1.2.111", StudyDate="20250101", **same)
    write_series(tmp_path, scan + 1, grid, name="b", uid="1.2.222", StudyDate="20260101", **same)
    with pytest.raises(VolumeError) as refusal:
        read_volume(tmp_path)
    for item in list_series(tmp_path):
        assert item.id in str(refusal.value)
    assert "2025-01-01" in str(refusal.value)
    for wanted in ("1.2.222", "2.222"):
        np.testing.assert_array_equal(read_volume(tmp_path, series=wanted).array, scan + 1)
    with pytest.raises(VolumeError, match="no series"):
        read_volume(tmp_path, series="222")  # may be meant as a number
    with pytest.raises(VolumeError, match=r"1\.2\.111.*1\.2\.222"):
        read_volume(tmp_path, series="4")
    scans = find_scans(tmp_path)
    assert {item.name.rpartition("_")[2] for item in scans} == {"1.2.111", "1.2.222"}


def test_all_candidates_are_listed(tmp_path, scan, grid):
    for number in range(12):
        write_series(tmp_path / str(number), scan[:2], grid, uid=f"1.{number}", SeriesNumber=number + 20)
    with pytest.raises(VolumeError) as refusal:
        read_volume(tmp_path)
    assert all(f"series {number + 20} " in str(refusal.value) for number in range(12))


def test_files_without_a_series_uid_are_told_apart_by_what_else_they_say(tmp_path, scan, grid):
    write_series(tmp_path, scan, grid, name="a", SeriesInstanceUID=None, SeriesNumber=2)
    write_series(tmp_path, scan + 1, grid, name="b", SeriesInstanceUID=None, SeriesNumber=3)
    for wanted, expected in (("2", scan), ("3", scan + 1)):
        np.testing.assert_array_equal(read_volume(tmp_path, series=wanted).array, expected)
    for item in list_series(tmp_path):
        assert read_volume(tmp_path, series=item.id).series == item.id


def test_two_patients_whose_series_have_one_uid_are_two_volumes(tmp_path, scan, grid):
    write_series(tmp_path, scan, grid, name="a", PatientID="A")
    write_series(tmp_path, scan + 1, grid, name="b", PatientID="B")
    found = list_series(tmp_path)
    assert [item.slice_count for item in found] == [8, 8]
    read = {int(read_volume(tmp_path, series=item.id).array[0, 0, 0]) for item in found}
    assert read == {int(scan[0, 0, 0]), int(scan[0, 0, 0]) + 1}


def test_slices_that_all_have_one_instance_uid_are_no_copies(tmp_path, scan, grid):
    write_series(tmp_path, scan, grid, SOPInstanceUID="1.2.3.4")
    np.testing.assert_array_equal(read_volume(tmp_path).array, scan)


def test_names_of_scans_stay_inside_of_the_folder_of_results(tmp_path, scan, grid):
    write_series(tmp_path / "p", scan, grid, name="a", EchoNumbers=1)
    write_series(tmp_path / "p", scan, grid, name="b", EchoNumbers=2)
    assert {item.name for item in find_scans(tmp_path)} == {"p_1.2.3", "p_1.2.3-2"}


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("TemporalPositionIdentifier", (1, 2)),
        ("AcquisitionNumber", (1, 2)),
        ("InversionTime", (100, 200)),
        ("NominalPercentageOfCardiacPhase", (0.0, 50.0)),
        ("ConvolutionKernel", ("B30", "B70")),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])),
        ("AcquisitionTime", ("100000", "100130")),
    ],
)
def test_images_at_one_place_are_told_apart_by_what_varies(tmp_path, scan, grid, keyword, values):
    for name, value, shift in (("a", values[0], 0), ("b", values[1], 1)):
        write_series(tmp_path, scan + shift, grid, name=name, **{keyword: value})
    found = list_series(tmp_path)
    assert [item.slice_count for item in found] == [8, 8]
    read = {int(read_volume(tmp_path, series=item.id).array[0, 0, 0]) for item in found}
    assert read == {int(scan[0, 0, 0]), int(scan[0, 0, 0]) + 1}


def test_two_elements_together_tell_images_apart(tmp_path, scan, grid):
    for echo in (1, 2):
        for time in (1, 2):
            write_series(tmp_path, scan, grid, name=f"{echo}{time}", EchoNumbers=echo, TemporalPositionIdentifier=time)
    descriptions = {item.description for item in list_series(tmp_path)}
    assert len(descriptions) == 4
    assert "(echo 1, time point 2)" in descriptions


def test_a_time_of_its_own_for_each_slice_parts_no_series(tmp_path, scan, grid):
    for name, shift in (("a", 0), ("b", 1)):
        for k, path in enumerate(write_series(tmp_path, scan + shift, grid, name=name)):
            change(path, TriggerTime=100.0 * k + shift)
    with pytest.raises(VolumeError, match=r"8 slices .* same place"):
        read_volume(tmp_path)


def test_scouts_along_the_slices_are_told_from_them(tmp_path, scan, grid):
    write_series(tmp_path, scan, grid)
    write_series(tmp_path, scan[:1], grid, name="scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    np.testing.assert_array_equal(read_volume(tmp_path).array, scan)


@pytest.mark.parametrize("with_thickness", [True, False])
def test_two_slice_distances_are_called_so(tmp_path, with_thickness):
    grid = geometry_with(np.eye(3), size=(6, 5, 16))
    scan = np.zeros(grid.shape, np.int16)
    depths = np.cumsum([0.0] + [4.0] * 7 + [5.1] + [7.0] * 7)
    for k, path in enumerate(write_series(tmp_path, scan, grid)):
        tags = {"SliceThickness": 4.0 if k < 8 else 7.0} if with_thickness else {}
        change(path, ImagePositionPatient=[0, 0, float(depths[k])], **tags)
    with pytest.raises(VolumeError, match=r"more than one distance.*7 of 4\.00 mm, then 7 of 7\.00 mm") as refusal:
        read_volume(tmp_path)
    assert "are missing" not in str(refusal.value)


@pytest.mark.parametrize("gone", [[4], [2, 5], [3, 4, 5]])
def test_missing_slices_are_called_so(tmp_path, gone):
    grid = geometry_with(np.eye(3), size=(6, 5, 12))
    paths = write_series(tmp_path, np.zeros(grid.shape, np.int16), grid)
    for k in gone:
        paths[k].unlink()
    with pytest.raises(VolumeError, match=f"{len(gone)} slices .* missing"):
        read_volume(tmp_path)


def test_an_unevenness_that_is_neither_is_called_uneven(tmp_path, scan):
    grid = geometry_with(np.eye(3), size=SIZE)
    depths = [0.0, 5.0, 11.0, 15.0, 22.0, 25.0, 31.0, 35.0]
    for depth, path in zip(depths, write_series(tmp_path, scan, grid)):
        change(path, ImagePositionPatient=[0, 0, depth])
    with pytest.raises(VolumeError, match="unevenly spaced"):
        read_volume(tmp_path)


def test_slices_that_are_there_twice_under_other_uids_are_used_once(tmp_path, scan, grid):
    write_series(tmp_path, scan, grid)
    write_series(tmp_path, scan[:3], grid, name="again")
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, scan)
    assert "3 slices are in the files twice" in " ".join(volume.notes)
