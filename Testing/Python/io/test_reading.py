"""Volumes are read with the voxels and the place that the file gives them, and refused with a reason otherwise."""

from __future__ import annotations

import gzip
import os
import re
import struct

import numpy as np
import pytest
import SimpleITK as sitk
from grids_of_tests import geometry_with, oblique_geometry, rotation
from nifti_files import nifti_bytes

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.sitk_images import image_of
from HSAMSegmentLib.io.volume_files import finite_array, read_volume

ALL_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr")


def _voxels(shape=(4, 5, 6), dtype=np.int16) -> np.ndarray:
    return np.random.default_rng(1).integers(-1000, 2000, shape).astype(dtype)


def _write(path, array, geometry=None, compress=False):
    image = sitk.GetImageFromArray(array) if geometry is None else image_of(array, geometry)
    sitk.WriteImage(image, str(path), compress)
    return path


@pytest.mark.parametrize("suffix", ALL_SUFFIXES)
@pytest.mark.parametrize("left_handed", [False, True])
def test_voxels_and_place_survive_in_every_format(tmp_path, suffix, left_handed):
    geometry = oblique_geometry(left_handed=left_handed)
    array = _voxels()
    volume = read_volume(_write(tmp_path / f"scan{suffix}", array, geometry))
    np.testing.assert_array_equal(volume.array, array)
    assert volume.array.dtype == np.int16
    np.testing.assert_allclose(volume.geometry.ijk_to_lps, geometry.ijk_to_lps, rtol=0, atol=1e-5)
    assert np.sign(np.linalg.det(volume.geometry.direction_matrix)) == (-1 if left_handed else 1)
    assert volume.name == "scan"
    assert volume.notes == ()


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd", ".nii.gz"])
def test_compressed_and_detached_files_are_read(tmp_path, suffix):
    array = _voxels()
    volume = read_volume(_write(tmp_path / f"scan{suffix}", array, oblique_geometry(), compress=True))
    np.testing.assert_array_equal(volume.array, array)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64])
def test_every_number_type_is_read(tmp_path, dtype):
    array = _voxels().clip(0, 100).astype(dtype)
    volume = read_volume(_write(tmp_path / "scan.nii", array))
    np.testing.assert_array_equal(volume.array, array)


def test_a_path_with_spaces_and_foreign_letters_is_read(tmp_path):
    folder = tmp_path / "Bäuche 肝 scans"
    folder.mkdir()
    array = _voxels()
    volume = read_volume(_write(folder / "Müller, A. (1).nii.gz", array))
    np.testing.assert_array_equal(volume.array, array)
    assert volume.name == "Müller, A. (1)"


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(tmp_path, order):
    array = _voxels()
    (tmp_path / "scan.nii").write_bytes(nifti_bytes(array, order=order, code=4))
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii").array, array)


def test_slope_and_intercept_are_applied(tmp_path):
    array = _voxels()
    (tmp_path / "scan.nii").write_bytes(nifti_bytes(array, code=4, slope=2.0, intercept=-24.0))
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii").array, 2.0 * array - 24.0)


def test_a_flat_image_becomes_one_slice(tmp_path):
    array = _voxels((5, 6))
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        volume = read_volume(_write(tmp_path / f"flat{suffix}", array))
        np.testing.assert_array_equal(volume.array, array[np.newaxis])
        assert volume.geometry.size == (6, 5, 1)


def test_a_trailing_dimension_of_one_is_dropped(tmp_path):
    array = _voxels((1, 4, 5, 6))
    image = sitk.GetImageFromArray(array, isVector=False)
    sitk.WriteImage(image, str(tmp_path / "scan.nrrd"))
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.nrrd").array, array[0])


def test_several_volumes_in_one_file_are_refused_with_their_number(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(_voxels((7, 4, 5, 6)), isVector=False), str(tmp_path / "series.nrrd"))
    with pytest.raises(VolumeError, match="holds 7 volumes"):
        read_volume(tmp_path / "series.nrrd")


def test_color_vector_and_complex_images_are_refused(tmp_path):
    color = sitk.GetImageFromArray(_voxels((4, 5, 3), np.uint8), isVector=True)
    sitk.WriteImage(color, str(tmp_path / "photo.png"))
    with pytest.raises(VolumeError, match="color picture"):
        read_volume(tmp_path / "photo.png")
    vectors = sitk.GetImageFromArray(_voxels((4, 5, 6, 2), np.float32), isVector=True)
    sitk.WriteImage(vectors, str(tmp_path / "field.nrrd"))
    with pytest.raises(VolumeError, match="2 values per voxel"):
        read_volume(tmp_path / "field.nrrd")
    waves = sitk.GetImageFromArray(_voxels().astype(np.complex64))
    sitk.WriteImage(waves, str(tmp_path / "waves.nii"))
    with pytest.raises(VolumeError, match="complex"):
        read_volume(tmp_path / "waves.nii")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_values_that_are_no_numbers_are_replaced_and_told(tmp_path, suffix):
    array = _voxels().astype(np.float32)
    array[0, 0, 0], array[1, 2, 3], array[3, 4, 5] = np.nan, np.inf, -np.inf
    finite = array[np.isfinite(array)]
    volume = read_volume(_write(tmp_path / f"scan{suffix}", array))
    assert np.isfinite(volume.array).all()
    np.testing.assert_array_equal(volume.array[np.isfinite(array)], finite)
    assert volume.array[0, 0, 0] == volume.array[3, 4, 5] == finite.min()
    assert volume.array[1, 2, 3] in (finite.min(), finite.max())
    assert "3 voxels" in " ".join(volume.notes)


def test_a_volume_without_any_number_is_refused(tmp_path):
    with pytest.raises(VolumeError, match="No voxel"):
        read_volume(_write(tmp_path / "scan.nii.gz", np.full((3, 4, 5), np.nan, np.float32)))


def test_whole_numbers_are_passed_on_as_they_are():
    array = _voxels()
    assert finite_array(array) == (array, ())


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("kept", [0, 60, 0.5, 0.97])
def test_a_file_that_is_cut_off_is_refused(tmp_path, suffix, kept):
    path = _write(tmp_path / f"scan{suffix}", _voxels((20, 30, 40)))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept > 1 else kept * len(content))])
    with pytest.raises(VolumeError) as refusal:
        read_volume(path)
    _assert_one_sentence(refusal.value, path.name)


def test_a_compressed_file_in_several_parts_is_complete(tmp_path):
    array = _voxels()
    content = nifti_bytes(array, code=4)
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii.gz").array, array)


def test_detached_voxels_that_are_missing_or_cut_off_are_refused(tmp_path):
    for suffix, data in ((".mhd", "scan.raw"), (".nhdr", "scan.raw")):
        path = _write(tmp_path / f"scan{suffix}", _voxels())
        (tmp_path / data).write_bytes(b"1234")
        with pytest.raises(VolumeError) as refusal:
            read_volume(path)
        _assert_one_sentence(refusal.value, path.name)
        (tmp_path / data).unlink()
        with pytest.raises(VolumeError) as refusal:
            read_volume(path)
        _assert_one_sentence(refusal.value, path.name)


@pytest.mark.parametrize("name", ["notes.txt", "scan.nii.gz", "scan.nrrd", "scan.mha", "scan.nii", "scan.dcm", "scan"])
def test_what_is_no_image_is_refused_whatever_its_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"This is a letter to the editor, and no image. " * 40)
    with pytest.raises(VolumeError) as refusal:
        read_volume(tmp_path / name)
    _assert_one_sentence(refusal.value, name)


def test_missing_files_and_other_things_are_refused(tmp_path):
    with pytest.raises(VolumeError, match="There is no file"):
        read_volume(tmp_path / "nothing.nii")
    with pytest.raises(VolumeError, match="no DICOM image"):
        read_volume(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii")
    with pytest.raises(VolumeError, match="is not a file"):
        read_volume(tmp_path / "pipe.nii")


def test_a_segmentation_is_not_taken_for_a_scan(tmp_path):
    path = _write(tmp_path / "organs.seg.nrrd", _voxels().astype(np.uint8))
    with pytest.raises(VolumeError, match="is a segmentation"):
        read_volume(path)


def _sheared(degrees):
    matrix = np.diag([1.0, 2.0, 3.0, 1.0])
    matrix[0, 2] = 3.0 * np.tan(np.radians(degrees))
    return matrix


def test_a_nifti_that_is_a_little_sheared_is_put_on_the_closest_rectangular_grid(tmp_path):
    array = _voxels()
    (tmp_path / "scan.nii").write_bytes(nifti_bytes(array, code=4, sform=_sheared(0.5)))
    volume = read_volume(tmp_path / "scan.nii")
    np.testing.assert_array_equal(volume.array, array)
    directions = volume.geometry.direction_matrix
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-6)
    assert re.search(r"0\.5 degrees", " ".join(volume.notes))
    assert "ITK_NIFTI_SFORM_PERMISSIVE" not in os.environ


def test_a_nifti_that_is_much_sheared_is_refused(tmp_path):
    (tmp_path / "scan.nii").write_bytes(nifti_bytes(_voxels(), code=4, sform=_sheared(12)))
    with pytest.raises(VolumeError, match=r"12\.0 degrees"):
        read_volume(tmp_path / "scan.nii")


def test_a_sheared_nrrd_keeps_its_grid_and_is_told(tmp_path):
    direction = np.eye(3)
    direction[:, 2] = [np.sin(0.2), 0.0, np.cos(0.2)]
    geometry = geometry_with(direction)
    volume = read_volume(_write(tmp_path / "scan.nrrd", _voxels(), geometry))
    np.testing.assert_allclose(volume.geometry.ijk_to_lps, geometry.ijk_to_lps, atol=1e-12)
    assert "11.5 degrees" in " ".join(volume.notes)


def test_a_nifti_whose_two_transforms_disagree_is_told(tmp_path):
    sform = np.diag([-1.0, -1.0, 1.0, 1.0])
    sform[:3, 3] = 5.0
    content = bytearray(nifti_bytes(_voxels(), code=4, sform=sform))
    struct.pack_into("<2h", content, 252, 1, 2)
    (tmp_path / "scan.nii").write_bytes(bytes(content))
    assert "sform places it differently than its qform" in " ".join(read_volume(tmp_path / "scan.nii").notes)


def test_hounsfield_units_are_taken_for_ct_and_nothing_else_is_guessed(data_folder):
    for name in ("ct_aorta", "ct_example_full", "ct_pulm"):
        assert read_volume(data_folder / "ct_totalsegmentator" / "images" / f"{name}.nii.gz").modality == "CT"
    for folder, name in (("chaos_t2", "chaos_t2_02"), ("cmr_bssfp", "cmr_bssfp_01")):
        assert read_volume(data_folder / folder / "images" / f"{name}.nii.gz").modality == ""


def test_a_real_scan_is_read_as_itk_has_it(data_folder):
    path = data_folder / "cmr_bssfp" / "images" / "cmr_bssfp_22.nii.gz"
    image = sitk.ReadImage(str(path))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image))
    expected = Geometry(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    assert volume.geometry == expected
    assert volume.source == path


def _assert_one_sentence(error: VolumeError, name: str) -> None:
    text = str(error)
    assert name in text
    assert "\n" not in text
    assert len(text) < 400


def test_the_rotation_of_the_test_grids_is_one():
    matrix = rotation(20, 30, 40)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1.0)
