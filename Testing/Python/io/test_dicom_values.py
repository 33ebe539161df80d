"""Voxels are those that each DICOM file's own header describes: bits, sign, scale, encoding, size of the pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import change, compress, reencode, write_frames, write_series, write_slice
from grids_of_tests import oblique_geometry
from pydicom.uid import (
    MPEG2MPML,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.images.sitk_images import geometry_of
from HSAMSegmentLib.io.volume_files import read_volume

SIZE = (6, 5, 8)


@pytest.fixture
def grid():
    return oblique_geometry(size=SIZE)


@pytest.fixture
def scan(grid):
    return np.random.default_rng(0).integers(-1000, 1000, grid.shape).astype(np.int16)


@pytest.mark.parametrize("odd", [0, 3, 7])
def test_a_slice_without_a_sign_among_signed_ones_keeps_its_values(tmp_path, scan, grid, odd):
    paths = write_series(tmp_path, scan, grid)
    large = (scan[odd].astype(np.int32) + 40000).astype("<u2")
    change(paths[odd], PixelRepresentation=0, PixelData=large.tobytes())
    expected = scan.astype(np.int32)
    expected[odd] = large
    np.testing.assert_array_equal(read_volume(tmp_path).array, expected)


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("odd", [0, 7])
def test_one_slice_with_a_scale_of_its_own_is_scaled_by_it(tmp_path, scan, grid, odd, modality):
    paths = write_series(tmp_path, scan, grid, modality=modality, RescaleSlope=1.0, RescaleIntercept=-1024.0)
    change(paths[odd], RescaleSlope=2.5, RescaleIntercept=10.0)
    expected = scan.astype(float) - 1024
    expected[odd] = scan[odd] * 2.5 + 10
    np.testing.assert_allclose(read_volume(tmp_path).array, expected, rtol=1e-6)


def test_the_scale_of_a_mr_image_counts_as_that_of_ct(tmp_path, scan, grid):
    write_series(tmp_path, scan, grid, modality="MR", RescaleSlope=0.5, RescaleIntercept=3.0)
    np.testing.assert_allclose(read_volume(tmp_path).array, scan * 0.5 + 3)


def test_an_overlay_in_the_high_bits_is_no_part_of_the_values(tmp_path, scan, grid):
    values = (scan & 0x0FFF).astype(np.uint16)
    marked = values | np.where(values % 3 == 0, 0x4000, 0).astype(np.uint16)
    for path, pixels in zip(write_series(tmp_path, scan, grid), marked):
        data = pydicom.dcmread(path)
        data.BitsStored, data.HighBit, data.PixelRepresentation = 12, 11, 0
        data.PixelData = pixels.astype("<u2").tobytes()
        data.add_new((0x6000, 0x0102), "US", 14)
        data.save_as(path)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, values)
    assert volume.notes == ()


def test_bits_above_the_stored_ones_without_an_overlay_are_cut_and_told(tmp_path, scan, grid):
    values = (scan & 0x0FFF).astype(np.uint16)
    for path, pixels in zip(write_series(tmp_path, scan, grid), values | 0x2000):
        change(path, BitsStored=12, HighBit=11, PixelRepresentation=0, PixelData=pixels.astype("<u2").tobytes())
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, values)
    assert "BitsStored" in " ".join(volume.notes)


def test_signed_values_of_twelve_bits_get_their_sign(tmp_path, scan, grid):
    for path, pixels in zip(write_series(tmp_path, scan, grid), scan):
        change(path, BitsStored=12, HighBit=11, PixelData=(pixels & 0x0FFF).astype("<u2").tobytes())
    np.testing.assert_array_equal(read_volume(tmp_path).array, scan)


def test_values_in_the_upper_bits_are_moved_down(tmp_path, scan, grid):
    values = (scan & 0x0FFF).astype(np.uint16)
    for path, pixels in zip(write_series(tmp_path, scan, grid), values << 4):
        change(path, BitsStored=12, HighBit=15, PixelRepresentation=0, PixelData=pixels.astype("<u2").tobytes())
    np.testing.assert_array_equal(read_volume(tmp_path).array, values)


@pytest.mark.parametrize("bits", [8, 32])
def test_values_of_one_and_four_bytes_are_read(tmp_path, scan, grid, bits):
    values = np.abs(scan.astype(np.int64)) % 250 if bits == 8 else scan.astype(np.int64) * 100000
    kind = "<u1" if bits == 8 else "<i4"
    for path, pixels in zip(write_series(tmp_path, scan, grid), values):
        change(
            path, BitsAllocated=bits, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=int(bits == 32),
            PixelData=pixels.astype(kind).tobytes(),
        )  # fmt: skip
    np.testing.assert_array_equal(read_volume(tmp_path).array, values)


@pytest.mark.parametrize(
    "syntax", [ExplicitVRBigEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
def test_every_plain_encoding_gives_the_same_values(tmp_path, scan, grid, syntax):
    for path in write_series(tmp_path, scan, grid, RescaleSlope=2.0, RescaleIntercept=-3.0):
        reencode(path, syntax)
    np.testing.assert_array_equal(read_volume(tmp_path).array, 2.0 * scan - 3)


# High-throughput JPEG 2000, which no pydicom before 3 knows, and a private one, as long as that which is written
@pytest.mark.parametrize("syntax", [b"1.2.840.10008.1.2.4.202", b"1.2.840.113619.5.2.1000"])
def test_a_compression_without_a_decoder_is_told(tmp_path, scan, grid, syntax):
    paths = write_series(tmp_path, scan, grid)
    for path in paths:
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = MPEG2MPML
        data.PixelData = pydicom.encaps.encapsulate([b"\0\1\2\3" * 20])
        data["PixelData"].is_undefined_length = True
        data.save_as(path)
        path.write_bytes(path.read_bytes().replace(MPEG2MPML.encode(), syntax))
    with pytest.raises(VolumeError, match="compression that is not supported"):
        read_volume(tmp_path)


def _large():
    """Slices that are large enough for the encoder."""
    grid = oblique_geometry(size=(64, 64, 3))
    return np.random.default_rng(0).integers(-1000, 1000, grid.shape).astype(np.int16), grid


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("scale", [(1.0, 0.0), (2.0, -3.0), (0.5, 0.0)])
def test_a_compressed_file_is_scaled_once_and_by_its_own_header(tmp_path, modality, scale):
    scan, grid = _large()
    tags = {"RescaleSlope": scale[0], "RescaleIntercept": scale[1]}
    for path in write_series(tmp_path, scan, grid, modality=modality, **tags):
        compress(path)
    np.testing.assert_allclose(read_volume(tmp_path).array, scale[0] * scan + scale[1])


def test_a_compressed_file_whose_values_are_of_another_type_than_it_says_is_refused(tmp_path):
    scan, grid = _large()
    paths = write_series(tmp_path, scan, grid)
    for path in paths:
        compress(path)
    change(paths[-1], PixelRepresentation=0)
    with pytest.raises(VolumeError, match=r"another type than its header|cannot be decoded"):
        read_volume(tmp_path)


def test_values_with_a_point_are_read(tmp_path, scan, grid):
    values = (scan / 7).astype(np.float32)
    for path, pixels in zip(write_series(tmp_path, scan, grid), values):
        data = pydicom.dcmread(path)
        del data.PixelData, data.PixelRepresentation, data.BitsStored, data.HighBit
        data.BitsAllocated, data.FloatPixelData = 32, pixels.tobytes()
        data.save_as(path)
    np.testing.assert_allclose(read_volume(tmp_path).array, values)


def test_low_values_that_are_shown_bright_are_told(tmp_path, scan, grid):
    write_series(tmp_path, scan, grid, modality="MR", PhotometricInterpretation="MONOCHROME1")
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, scan)
    assert "MONOCHROME1" in " ".join(volume.notes)


def test_color_pictures_beside_a_scan_are_left_out_and_are_no_scan(tmp_path, scan, grid):
    write_series(tmp_path / "ct", scan, grid)
    picture = write_slice(
        tmp_path / "fused.dcm", scan[0], grid.origin_mm, grid.direction_matrix, uid="7.7", SamplesPerPixel=3,
        PhotometricInterpretation="RGB", PlanarConfiguration=0, BitsAllocated=8, BitsStored=8, HighBit=7,
        PixelRepresentation=0, PixelData=bytes(3 * 6 * 5), SOPClassUID=SecondaryCaptureImageStorage,
    )  # fmt: skip
    np.testing.assert_array_equal(read_volume(tmp_path).array, scan)
    with pytest.raises(VolumeError, match="color picture"):
        read_volume(picture)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"NominalScannedPixelSpacing": [0.5, 0.25]}, (0.25, 0.5)),
        ({"ImagerPixelSpacing": [0.6, 0.3]}, (0.3, 0.6)),
        ({"ImagerPixelSpacing": [0.6, 0.3], "EstimatedRadiographicMagnificationFactor": 1.5}, (0.2, 0.4)),
        ({"PixelSpacing": [1.25, 0.75], "ImagerPixelSpacing": [9, 9]}, (0.75, 1.25)),
    ],
)
@pytest.mark.parametrize("kind", [ComputedRadiographyImageStorage, SecondaryCaptureImageStorage])
def test_the_size_of_pixels_is_the_one_that_the_file_names(tmp_path, scan, grid, tags, expected, kind):
    write_series(tmp_path, scan, grid, SOPClassUID=kind, **{"PixelSpacing": None, **tags})
    np.testing.assert_allclose(read_volume(tmp_path).geometry.spacing_mm[:2], expected)


def test_slices_that_do_not_say_the_size_of_their_pixels_are_refused(tmp_path, scan, grid):
    paths = write_series(tmp_path, scan, grid, PixelSpacing=None)
    with pytest.raises(VolumeError, match="size of its pixels"):
        read_volume(tmp_path)
    with pytest.raises(VolumeError, match="size of its pixels"):
        read_volume(paths[0])


def test_decimal_commas_are_read_as_points(tmp_path, scan, grid):
    paths = write_series(tmp_path, scan, grid)
    for path in paths:
        content = path.read_bytes()
        assert b"1.1\\0.7" in content
        path.write_bytes(content.replace(b"1.1\\0.7", b"1,1\\0,7"))
    np.testing.assert_allclose(read_volume(tmp_path).geometry.spacing_mm, grid.spacing_mm, rtol=1e-5)


@pytest.mark.parametrize("distance", [0, -5.3])
def test_a_wrong_spacing_between_slices_does_not_count(tmp_path, scan, grid, distance):
    paths = write_series(tmp_path, scan, grid, SpacingBetweenSlices=distance)
    np.testing.assert_allclose(read_volume(tmp_path).geometry.spacing_mm, grid.spacing_mm, rtol=1e-5)
    for path in paths[1:]:
        path.unlink()
    assert read_volume(tmp_path).geometry.spacing_mm[2] == pytest.approx(5.3)


def test_directions_that_are_a_little_too_long_are_mended(tmp_path, scan, grid):
    tilted = replace(grid, direction=tuple(np.ravel(grid.direction_matrix)))
    directions = [float(value) * 1.01 for value in grid.direction_matrix[:, :2].T.ravel()]
    write_series(tmp_path, scan, tilted, ImageOrientationPatient=directions)
    np.testing.assert_allclose(read_volume(tmp_path).geometry.direction, grid.direction, atol=1e-5)


@pytest.mark.parametrize("orientation", [[1, 0, 0, 0.5, 1, 0], [0, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0]])
def test_directions_that_are_not_at_right_angles_are_refused(tmp_path, scan, grid, orientation):
    paths = write_series(tmp_path, scan, grid, ImageOrientationPatient=orientation)
    for source in (tmp_path, paths[0]):
        with pytest.raises(VolumeError, match="right angles"):
            read_volume(source)


def test_spacing_and_scale_of_enhanced_frames_come_from_their_groups(tmp_path, scan, grid):
    positions = [(grid.ijk_to_lps @ [0, 0, k, 1])[:3] for k in range(8)]
    path = write_frames(tmp_path / "multi.dcm", scan, positions, grid.direction_matrix, slopes=[0.5] * 8)
    volume = read_volume(path)
    np.testing.assert_allclose(volume.array, scan * 0.5)
    np.testing.assert_allclose(volume.geometry.spacing_mm, grid.spacing_mm, rtol=1e-5)


@pytest.mark.parametrize("tags", [{}, {"RescaleSlope": 1.0, "RescaleIntercept": -1024.0}])
def test_voxels_and_grid_are_those_of_itk_where_the_files_agree(tmp_path, scan, grid, tags):
    paths = write_series(tmp_path, scan, grid, **tags)
    image = sitk.ReadImage([str(path) for path in paths])
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image))
    expected = geometry_of(image)
    np.testing.assert_allclose(volume.geometry.ijk_to_lps, expected.ijk_to_lps, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("stored", "high"), [(12, 7), (12, 40), (99, 15), (0, 15)])
def test_impossible_counts_of_bits_wrap_no_value(tmp_path, scan, grid, stored, high):
    values = (scan & 0x0FFF).astype(np.uint16)
    for path, pixels in zip(write_series(tmp_path, scan, grid), values):
        change(path, BitsStored=stored, HighBit=high, PixelRepresentation=0, PixelData=pixels.astype("<u2").tobytes())
    np.testing.assert_array_equal(read_volume(tmp_path).array, values)


def test_a_file_that_is_encoded_otherwise_than_it_says_is_read_as_it_is(tmp_path, scan, grid):
    named, used = ImplicitVRLittleEndian, ExplicitVRLittleEndian
    for path in write_series(tmp_path, scan, grid):
        content = path.read_bytes()
        assert used.encode() in content
        path.write_bytes(content.replace(used.encode() + b"\0", named.encode().ljust(len(used) + 1, b"\0")))
    np.testing.assert_array_equal(read_volume(tmp_path).array, scan)


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
def test_a_scale_that_is_no_number_is_refused_and_not_guessed(tmp_path, scan, grid, keyword):
    tags = {"RescaleSlope": "1.2345", "RescaleIntercept": "-1.2345"}
    paths = write_series(tmp_path, scan, grid, **tags)
    paths[-1].write_bytes(paths[-1].read_bytes().replace(tags[keyword].encode(), b"x" * len(tags[keyword])))
    with pytest.raises(VolumeError, match="is not a number"):
        read_volume(tmp_path)


def test_an_empty_scale_is_none(tmp_path, scan, grid):
    write_series(tmp_path, scan, grid, RescaleSlope="", RescaleIntercept="")
    np.testing.assert_array_equal(read_volume(tmp_path).array, scan)


@pytest.mark.parametrize("sign", [None, 103])
def test_values_whose_storage_is_not_described_are_refused(tmp_path, scan, grid, sign):
    write_series(tmp_path, scan, grid, PixelRepresentation=sign)
    with pytest.raises(VolumeError, match="how its values are stored"):
        read_volume(tmp_path)
