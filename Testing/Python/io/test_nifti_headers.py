"""What a NIfTI or Analyze header says and ITK does not tell is told, and a damaged header is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import SimpleITK as sitk
from nifti_files import nifti_bytes

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.io.volume_files import read_volume

VOXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
NOT_SURE = "left and right are not sure"


def _notes(tmp_path, content) -> str:
    (tmp_path / "scan.nii").write_bytes(bytes(content))
    return " ".join(read_volume(tmp_path / "scan.nii").notes)


def test_a_nifti_without_any_transform_is_told(tmp_path):
    content = bytearray(nifti_bytes(np.zeros((3, 4, 5), np.int16), code=4))
    struct.pack_into("<2h", content, 252, 0, 0)
    (tmp_path / "scan.nii").write_bytes(bytes(content))
    assert "left and right are not sure" in " ".join(read_volume(tmp_path / "scan.nii").notes)


def test_a_nifti_whose_voxels_begin_nowhere_is_refused(tmp_path):
    content = bytearray(nifti_bytes(np.zeros((3, 4, 5), np.int16), code=4))
    struct.pack_into("<f", content, 108, float("nan"))
    (tmp_path / "scan.nii").write_bytes(bytes(content))
    with pytest.raises(VolumeError, match="damaged"):
        read_volume(tmp_path / "scan.nii")


def test_a_nifti_whose_type_and_bits_contradict_each_other_is_refused(tmp_path):
    (tmp_path / "scan.nii").write_bytes(nifti_bytes(np.zeros((3, 4, 5), np.int16), code=16))
    with pytest.raises(VolumeError, match="32 bits, it says 16"):
        read_volume(tmp_path / "scan.nii")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("place", "codes", "what"),
    [(84, (0, 0), "voxel size"), (256, (1, 0), "qform"), (272, (1, 0), "qform"), (280, (0, 1), "sform")],
)
def test_a_place_in_space_that_is_not_a_number_is_refused(tmp_path, number, place, codes, what):
    content = bytearray(nifti_bytes(VOXELS, code=4, sform=np.eye(4)))
    struct.pack_into("<2h", content, 252, *codes)
    struct.pack_into("<f", content, place, number)
    with pytest.raises(VolumeError, match=f"{what}.* is not a number"):
        _notes(tmp_path, content)


def test_a_transform_that_is_not_used_may_be_anything(tmp_path):
    content = bytearray(nifti_bytes(VOXELS, code=4, sform=np.eye(4)))
    struct.pack_into("<6f", content, 256, *[float("nan")] * 6)
    assert _notes(tmp_path, content) == ""


def test_a_missing_voxel_size_is_told(tmp_path):
    content = bytearray(nifti_bytes(VOXELS, code=4))
    struct.pack_into("<f", content, 88, 0.0)
    assert "1 mm was taken" in _notes(tmp_path, content)


def test_a_voxel_size_that_differs_from_the_sform_is_told(tmp_path):
    assert _notes(tmp_path, nifti_bytes(VOXELS, code=4, sform=np.eye(4))) == ""
    wrong = nifti_bytes(VOXELS, code=4, sform=np.diag([1.0, 1.0, 3.0, 1.0]))
    assert "sform places it differently" in _notes(tmp_path, wrong)


def test_a_voxel_size_that_no_scanner_has_is_told(tmp_path):
    content = bytearray(nifti_bytes(VOXELS, code=4))
    struct.pack_into("<f", content, 88, 1e-30)
    assert "1e-30 mm" in _notes(tmp_path, content)


def _pair(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS.astype(np.float32)), str(tmp_path / "scan.hdr"))
    return tmp_path / "scan.hdr", tmp_path / "scan.img"


def test_an_analyze_file_is_read_with_a_word_on_its_orientation(tmp_path):
    header, voxels = _pair(tmp_path)
    assert read_volume(header).notes == ()
    analyze = bytearray(header.read_bytes()[:348])
    analyze[252:348] = bytes([2, *range(1, 92), 0, 0, 0, 0])  # where NIfTI has its transforms, Analyze has other things
    header.write_bytes(analyze)
    for path in (header, voxels):
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array, VOXELS)
        assert NOT_SURE in " ".join(volume.notes)


def test_voxels_of_a_pair_are_checked_like_those_of_one_file(tmp_path):
    header, voxels = _pair(tmp_path)
    content = bytearray(voxels.read_bytes())
    struct.pack_into("<f", content, 40, float("nan"))
    voxels.write_bytes(content)
    volume = read_volume(header)
    assert "1 voxels held no finite number" in " ".join(volume.notes)
    assert volume.array.ravel()[10] == 0.0
    voxels.write_bytes(content[:-4])
    with pytest.raises(VolumeError, match="voxels are missing"):
        read_volume(header)
    voxels.unlink()
    with pytest.raises(VolumeError, match=r"scan\.hdr"):
        read_volume(header)
