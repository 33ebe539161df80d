"""Damaged and odd files, made by a seeded generator: refused in a sentence, or read as a second reader reads them."""

from __future__ import annotations

import gzip
import io
import random
import signal
import warnings
from contextlib import contextmanager

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nifti_files import nifti_bytes
from small_scans import write_dicom_series

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.io.volume_files import read_volume

SECONDS_PER_FILE = 10
SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".dcm", ".img", ".NII", ".nii.nii.gz", "")
NUMBERS = (b"0", b"-1", b"nan", b"1e400", b"99999999", b"0.5", b"", b"3 3 3 3")


@contextmanager
def hang_guard():
    def stop(*_):
        raise TimeoutError(f"more than {SECONDS_PER_FILE} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_PER_FILE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Small sound files by suffix."""
    folder = tmp_path_factory.mktemp("seeds")
    array = np.arange(4 * 6 * 5, dtype=np.int16).reshape(4, 6, 5)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.8, 0.9, 3.0))
    image.SetOrigin((-11.0, 7.0, 30.0))
    sounds = {}
    for name in ("a.nii", "a.nii.gz", "a.nrrd", "a.mha"):
        sitk.WriteImage(image, str(folder / name), useCompression=name != "a.mha")
        sounds[name[1:]] = (folder / name).read_bytes()
    sounds[".NII"] = nifti_bytes(array, order=">", slope=2.0, intercept=-5.0, sform=np.diag([1.0, 2.0, 3.0, 1.0]))
    first = sorted(write_dicom_series(folder / "dicom").iterdir())[0]
    sounds[".dcm"] = first.read_bytes()
    return sounds


def mutated(content: bytes, chance: random.Random) -> bytes:
    """One to three changes: bytes of the header, numbers of a text header, a cut, packing."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        kind = chance.randrange(6)
        place = chance.randrange(max(1, min(len(data), 400)))
        if kind <= 1 and data:
            data[place] = chance.choice((0, 1, 2, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif kind == 2 and data[:4] in (b"NRRD", b"Obje"):
            start = data.find(b" ", place)
            end = data.find(b"\n", start)
            if 0 <= start < end:
                data[start + 1 : end] = chance.choice(NUMBERS)
        elif kind == 3 and chance.random() < 0.4:
            del data[chance.randrange(len(data) + 1) :]
        elif kind == 4 and len(data) > 348:
            field = chance.choice((40, 42, 44, 46, 70, 72, 76, 80, 84, 88, 108, 112, 116, 123, 252, 254, 280, 296))
            data[field : field + 2] = bytes(chance.randrange(256) for _ in range(2))
        elif kind == 5 and chance.random() < 0.3:
            data = bytearray(gzip.compress(bytes(data)))
    return bytes(data)


def differs_from_nibabel(content: bytes, volume) -> str:
    """What nibabel has otherwise, where it reads the file at all."""
    plain = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    if plain[344:348] != b"n+1\0":
        return ""
    try:
        other = nibabel.Nifti1Image.from_bytes(plain)
        values = np.asanyarray(other.dataobj)
    except Exception:  # noqa: BLE001 - the second reader refuses what we mend
        return ""
    values = values.reshape([*values.shape, 1, 1][: max(3, values.ndim)])
    values = values.reshape(values.shape[:3]) if values.ndim > 3 and max(values.shape[3:]) == 1 else values
    if values.T.shape != volume.array.shape:
        return f"shape {values.T.shape}, not {volume.array.shape}"
    if not np.allclose(values.T, volume.array, rtol=1e-4, atol=1e-3, equal_nan=True):
        return "voxels"
    header = other.header
    has_place = header["qform_code"] > 0 or header["sform_code"] > 0
    unit = {1: 1000.0, 3: 0.001}.get(int(header["xyzt_units"]) & 7, 1.0)
    affine = np.diag([unit, unit, unit, 1.0]) @ other.affine
    if has_place and not np.allclose(affine, volume.geometry.ijk_to_ras, rtol=1e-3, atol=0.2):
        return f"place {affine.tolist()}, not {volume.geometry.ijk_to_ras.tolist()}"
    return ""


def differs_from_pynrrd(content: bytes, volume) -> str:
    nrrd = pytest.importorskip("nrrd")
    if not content.startswith(b"NRRD"):
        return ""
    try:
        stream = io.BytesIO(content)
        header = nrrd.read_header(stream)
        values = nrrd.read_data(header, stream)
    except Exception:  # noqa: BLE001 - the second reader refuses what we mend
        return ""
    if values.ndim == 3 and (values.T.shape != volume.array.shape or not np.allclose(values.T, volume.array)):
        return "voxels"
    directions = header.get("space directions")
    if header.get("space") == "left-posterior-superior" and np.shape(directions) == (3, 3):
        ours = volume.geometry.ijk_to_lps[:3, :3].T
        if np.isfinite(directions).all() and not np.allclose(directions, ours, rtol=1e-4, atol=1e-4):
            return f"directions {directions.tolist()}, not {ours.tolist()}"
    return ""


def differs_from_pydicom(content: bytes, volume) -> str:
    pydicom = pytest.importorskip("pydicom")
    if content[128:132] != b"DICM":
        return ""
    try:
        data = pydicom.dcmread(io.BytesIO(content))
        values = data.pixel_array * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
    except Exception:  # noqa: BLE001 - the second reader refuses what we mend
        return ""
    same = values.size == volume.array.size and np.allclose(values.ravel(), volume.array.ravel(), atol=1e-2)
    return "" if same else "voxels"


def fuzz(seeds, folder, count: int, seed: int) -> list[str]:
    """Read `count` files; what is wrong with any of them, with its number."""
    chance, wrong = random.Random(seed), []
    for index in range(count):
        kind = chance.choice(sorted(seeds))
        content = mutated(seeds[kind], chance)
        suffix = kind if chance.random() < 0.7 else chance.choice(SUFFIXES)
        place = folder / "files"
        place.mkdir()
        path = place / f"a{suffix}"
        path.write_bytes(content)
        sibling = place / f"a{chance.choice(SUFFIXES)}"
        if chance.random() < 0.3 and not sibling.exists():
            sibling.write_bytes(seeds[chance.choice(sorted(seeds))])
        try:
            with hang_guard(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                volume = read_volume(path)
                if not volume.notes:
                    for compare in (differs_from_nibabel, differs_from_pynrrd, differs_from_pydicom):
                        if difference := compare(content, volume):
                            wrong.append(f"{seed}/{index} {path.name}: {difference}")
        except HSAMSegmentError:
            pass
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            wrong.append(f"{seed}/{index} {path.name}: {type(error).__name__}: {error}")
        for file in place.iterdir():
            file.unlink()
        place.rmdir()
    return wrong


def test_300_odd_files_are_read_right_or_refused(seeds, tmp_path):
    assert fuzz(seeds, tmp_path, 300, seed=1) == []


@pytest.mark.slow
def test_10000_odd_files_are_read_right_or_refused(seeds, tmp_path):
    assert fuzz(seeds, tmp_path, 10_000, seed=2) == []
