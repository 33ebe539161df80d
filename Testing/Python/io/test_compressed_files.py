"""One damaged byte inside of a compressed volume is noticed, in every format, before any voxel is used."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import numpy as np
import pytest
import SimpleITK as sitk

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.io.compressed_files import check_compressed
from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.labels.segmentation_files import read_segmentation

VOXELS = np.random.default_rng(1).integers(0, 50, (10, 20, 30)).astype(np.int16)
FORMATS = {".nrrd": ".nrrd", ".nhdr": ".raw.gz", ".mha": ".mha", ".mhd": ".zraw", ".nii.gz": ".nii.gz"}


def _written(folder, suffix, array=VOXELS):
    sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / f"scan{suffix}"), True)
    return folder / f"scan{suffix}", folder / f"scan{FORMATS[suffix]}"


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_damaged_byte_is_noticed_wherever_it_is(tmp_path, suffix):
    path, voxels = _written(tmp_path, suffix)
    np.testing.assert_array_equal(read_volume(path).array, VOXELS)
    whole = voxels.read_bytes()
    first = 600 if voxels == path else 20
    for place in np.linspace(first, len(whole) - 12, 40).astype(int):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        voxels.write_bytes(damaged)
        with pytest.raises(VolumeError, match="damaged"):
            read_volume(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_compressed_file_that_is_cut_off_is_refused(tmp_path, suffix):
    path, voxels = _written(tmp_path, suffix)
    whole = voxels.read_bytes()
    for kept in (len(whole) // 2, len(whole) - 1):
        voxels.write_bytes(whole[:kept])
        with pytest.raises(VolumeError, match=r"damaged|cut off"):
            read_volume(path)


def _header_and_voxels(path):
    content = path.read_bytes()
    end = content.index(b"\n\n") + 2 if path.suffix == ".nrrd" else content.index(b"LOCAL\n") + 6
    return content[:end], content[end:]


def test_compressed_voxels_that_are_too_few_are_refused(tmp_path):
    for suffix, pack in ((".nrrd", gzip.compress), (".mha", zlib.compress)):
        path, _ = _written(tmp_path, suffix)
        header, voxels = _header_and_voxels(path)
        packed = pack(VOXELS.tobytes()[:-2])
        path.write_bytes(header.replace(str(len(voxels)).encode(), str(len(packed)).encode()) + packed)
        with pytest.raises(VolumeError, match="damaged"):
            read_volume(path)


def test_a_compressed_nrrd_in_several_parts_is_whole(tmp_path):
    path, _ = _written(tmp_path, ".nrrd")
    header, voxels = _header_and_voxels(path)
    content = gzip.decompress(voxels)
    path.write_bytes(header + gzip.compress(content[:1001]) + gzip.compress(content[1001:]))
    np.testing.assert_array_equal(read_volume(path).array, VOXELS)
    path.write_bytes(header + gzip.compress(content[:1001]) + gzip.compress(content[1001:])[:-3])
    with pytest.raises(VolumeError, match="damaged"):
        read_volume(path)


def test_a_damaged_segmentation_is_refused_too(tmp_path):
    path = tmp_path / "organs.seg.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS.astype(np.uint8)), str(path), True)
    damaged = bytearray(path.read_bytes())
    damaged[-200] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(VolumeError, match="damaged"):
        read_segmentation(path)


def test_a_scan_of_every_number_type_passes(tmp_path):
    for dtype in (np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64):
        for suffix in FORMATS:
            path, _ = _written(tmp_path, suffix, VOXELS.astype(dtype))
            np.testing.assert_array_equal(read_volume(path).array, VOXELS)


def test_the_check_takes_little_memory_however_much_is_packed(tmp_path):
    path, _ = _written(tmp_path, ".nii.gz", np.zeros((400, 256, 256), np.int16))
    assert path.stat().st_size < 1_000_000
    tracemalloc.start()
    check_compressed(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000
