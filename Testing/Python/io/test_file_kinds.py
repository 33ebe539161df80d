"""A file is what its content says, whatever its name and whatever lies beside it."""

from __future__ import annotations

import gzip
import os
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nifti_files import nifti_bytes

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.images.sitk_images import geometry_of
from HSAMSegmentLib.io.volume_files import read_volume

VOXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
NOT_SURE = "left and right are not sure"


def write(path, array):
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


@pytest.mark.parametrize(
    "names", [("a.nii", "a.nii.gz"), ("a.nii", "a.img"), ("a.nii.gz", "a.img"), ("a.nii", "A.NII.GZ")]
)
def test_a_file_is_not_mixed_up_with_a_sibling_of_its_stem(tmp_path, names):
    for number, name in enumerate(names):
        content = nifti_bytes(VOXELS + 1000 * number, code=4)
        if name.lower().endswith(".gz"):
            (tmp_path / name).write_bytes(gzip.compress(content))
        elif name.endswith(".img"):
            write(tmp_path / name, VOXELS + 1000 * number)
        else:
            (tmp_path / name).write_bytes(content)
    for number, name in enumerate(names):
        np.testing.assert_array_equal(read_volume(tmp_path / name).array, VOXELS + 1000 * number)


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
@pytest.mark.parametrize(
    "stem", ["100%d", "a%02d", "BestDiast 77 %", "struct(%Max=5)", "%s%s%n", "umlaut ä", "quote'1"]
)
def test_voxels_beside_a_header_are_read_whatever_their_name(tmp_path, suffix, stem):
    write(tmp_path / f"plain{suffix}", VOXELS)
    data = tmp_path / "plain.raw"
    header = (tmp_path / f"plain{suffix}").read_bytes().replace(b"plain.raw", f"{stem}.raw".encode())
    data.rename(tmp_path / f"{stem}.raw")
    (tmp_path / f"{stem}{suffix}").write_bytes(header)
    np.testing.assert_array_equal(read_volume(tmp_path / f"{stem}{suffix}").array, VOXELS)
    (tmp_path / f"{stem}.raw").unlink()
    with pytest.raises(VolumeError, match="there is no file"):
        read_volume(tmp_path / f"{stem}{suffix}")


def test_a_numbered_series_of_slices_is_still_one(tmp_path):
    write(tmp_path / "scan.nhdr", VOXELS)
    for index, piece in enumerate(VOXELS):
        (tmp_path / f"s{index:02d}.raw").write_bytes(piece.tobytes())
    header = (tmp_path / "scan.nhdr").read_bytes().replace(b"scan.raw", b"s%02d.raw 0 2 1 2")
    (tmp_path / "scan.nhdr").write_bytes(header)
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.nhdr").array, VOXELS)


@pytest.mark.parametrize("name", ["packed.nii", "scan", "scan.dat", "CAPITAL.NII.GZ", "100% (1).nii.gz"])
def test_packed_and_unpacked_content_is_told_apart_by_content(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(nifti_bytes(VOXELS, code=4)))
    np.testing.assert_array_equal(read_volume(tmp_path / name).array, VOXELS)
    (tmp_path / name).write_bytes(nifti_bytes(VOXELS, code=4))
    np.testing.assert_array_equal(read_volume(tmp_path / name).array, VOXELS)


def test_a_file_that_was_packed_twice_is_called_so(tmp_path):
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(gzip.compress(nifti_bytes(VOXELS, code=4))))
    with pytest.raises(VolumeError, match="compressed twice"):
        read_volume(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s123--abc.nii.gz\n", "git annex get"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b'<?xml version="1.0"?><Error/>', "XML document"),
        (b'{"error": "forbidden"}', "JSON document"),
        (b"PK\x03\x04" + bytes(60), "ZIP archive"),
        (b"BZh91AY&SY" + bytes(60), "bzip2"),
        (b"%PDF-1.7\n", "PDF document"),
        (b"\0\5\x16\7" + bytes(60), "macOS"),
    ],
)
@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nrrd", "scan.mha"])
def test_what_is_not_an_image_is_called_what_it_is(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VolumeError, match=words) as refusal:
        read_volume(tmp_path / name)
    assert name in str(refusal.value)


@pytest.mark.parametrize(
    ("code", "words"), [(1, "single bits"), (1536, "128 bits"), (32, "complex"), (128, "color"), (77, "77")]
)
def test_kinds_of_voxels_that_are_not_a_scan_are_named(tmp_path, code, words):
    content = bytearray(nifti_bytes(VOXELS, code=4))
    struct.pack_into("<h", content, 70, code)
    (tmp_path / "scan.nii").write_bytes(bytes(content))
    with pytest.raises(VolumeError, match=words):
        read_volume(tmp_path / "scan.nii")


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e-3), ("micron", 1e3), ("mm", 1.0)])
def test_units_of_length_are_converted_without_a_false_note(tmp_path, unit, factor):
    affine = np.diag([-2.0 * factor, 2.0 * factor, 3.0 * factor, 1.0])
    image = nibabel.Nifti1Image(VOXELS.transpose(2, 1, 0), affine)
    image.header.set_xyzt_units(unit)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nibabel.save(image, tmp_path / "scan.nii.gz")
    volume = read_volume(tmp_path / "scan.nii.gz")
    np.testing.assert_allclose(volume.geometry.spacing_mm, (2.0, 2.0, 3.0), rtol=1e-5)
    assert volume.notes == ()


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_negative_voxel_size_does_not_flip_the_scan(tmp_path, codes, axis):
    affine = np.array([[-2.0, 0, 0, 10], [0, 2, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(VOXELS.transpose(2, 1, 0), affine)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    content = bytearray(image.to_bytes())
    right = tmp_path / "right.nii"
    right.write_bytes(bytes(content))
    size = struct.unpack_from("<f", content, 80 + 4 * axis)[0]
    struct.pack_into("<f", content, 80 + 4 * axis, -size)
    (tmp_path / "scan.nii").write_bytes(bytes(content))
    expected, found = read_volume(right), read_volume(tmp_path / "scan.nii")
    np.testing.assert_array_equal(found.array, expected.array)
    assert found.geometry == expected.geometry


@pytest.mark.parametrize("version", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64, np.uint64, np.float32, np.float64])
def test_voxels_and_place_are_those_of_a_second_reader(tmp_path, version, dtype):
    generator = np.random.default_rng(3)
    array = generator.integers(0, 200, (5, 4, 3)).astype(dtype)
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * [1.0, 2.0, 3.0], generator.normal(size=3) * 50
    nibabel.save(version(array, affine, dtype=dtype), tmp_path / "scan.nii.gz")
    volume, theirs = read_volume(tmp_path / "scan.nii.gz"), nibabel.load(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(volume.array, np.asanyarray(theirs.dataobj).transpose(2, 1, 0))
    np.testing.assert_allclose(volume.geometry.ijk_to_ras, theirs.affine, atol=1e-4)
    if version is nibabel.Nifti1Image:
        assert volume.geometry == geometry_of(sitk.ReadImage(str(tmp_path / "scan.nii.gz")))


def test_scaled_values_are_those_that_itk_computes(tmp_path):
    (tmp_path / "scan.nii").write_bytes(nifti_bytes(VOXELS, code=4, slope=0.37, intercept=-24.1))
    volume = read_volume(tmp_path / "scan.nii")
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "scan.nii")))
    assert volume.array.dtype == theirs.dtype
    np.testing.assert_array_equal(volume.array, theirs)


def test_a_missing_orientation_is_told_in_every_format(tmp_path):
    write(tmp_path / "ok.mha", VOXELS)
    content = (tmp_path / "ok.mha").read_bytes()
    lines = content.split(b"\n", 10)
    bare = b"\n".join(line for line in lines if not line.startswith((b"TransformMatrix", b"Offset", b"CenterOf")))
    (tmp_path / "bare.mha").write_bytes(bare)
    header = b"NRRD0004\ntype: int16\ndimension: 3\nsizes: 5 4 3\nencoding: raw\nendian: little\n\n"
    (tmp_path / "bare.nrrd").write_bytes(header + VOXELS.tobytes())
    write(tmp_path / "stack.tif", VOXELS)
    assert read_volume(tmp_path / "ok.mha").notes == ()
    for name in ("bare.mha", "bare.nrrd", "stack.tif"):
        assert NOT_SURE in " ".join(read_volume(tmp_path / name).notes), name
    assert "1 mm was taken" in " ".join(read_volume(tmp_path / "bare.nrrd").notes)


def test_bzip2_in_an_nrrd_is_named(tmp_path):
    header = b"NRRD0004\ntype: int16\ndimension: 3\nsizes: 5 4 3\nencoding: bzip2\nendian: little\n\n"
    (tmp_path / "scan.nrrd").write_bytes(header + b"BZh9")
    with pytest.raises(VolumeError, match="compressed with bzip2"):
        read_volume(tmp_path / "scan.nrrd")


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_without_content_is_called_so(tmp_path):
    (tmp_path / "scan.nii.gz").symlink_to(tmp_path / ".git" / "annex" / "objects" / "abc.nii.gz")
    with pytest.raises(VolumeError, match="git annex get"):
        read_volume(tmp_path / "scan.nii.gz")


def test_nothing_but_our_sentence_reaches_the_terminal(tmp_path, capfd):
    write(tmp_path / "plain.mhd", VOXELS)
    (tmp_path / "plain.raw").write_bytes(b"1234")
    with pytest.raises(VolumeError):
        read_volume(tmp_path / "plain.mhd")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["a", "a.img", "a.nii"])
def test_an_nrrd_under_a_foreign_name_is_not_mixed_up_with_a_nifti_file_beside_it(tmp_path, name):
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "x.nrrd"))
    (tmp_path / "x.nrrd").rename(tmp_path / name)
    for sibling in {"a.nii", "a.hdr", "a.nii.gz"} - {name}:
        sitk.WriteImage(sitk.GetImageFromArray(array + 100), str(tmp_path / f"s{sibling[1:]}"))
        (tmp_path / f"s{sibling[1:]}").rename(tmp_path / sibling)
    np.testing.assert_array_equal(read_volume(tmp_path / name).array, array)
