"""What ITK does not tell of a NIfTI file: is it complete, is it sheared, is every value a number.

ITK fills a truncated NIfTI file up with zeros and replaces values that are not finite by zero, both without a word.
Field offsets are those of the NIfTI-1 and NIfTI-2 standards.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from HSAMSegmentLib.errors import VolumeError

_HEADER_BYTES = 544
_PAIR_SUFFIXES = (".hdr", ".img")
NIFTI_SUFFIXES = (".nii", ".nii.gz", *_PAIR_SUFFIXES)
_READ_BLOCK = 1 << 22
_FLOAT_TYPES = {16: "f4", 64: "f8"}
_BITS_OF_TYPE = {2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}


@dataclass(frozen=True)
class NiftiHeader:
    """The fields of a NIfTI header that are needed here.

    Attributes:
        size: lengths of all dimensions.
        byte_order: "<" or ">".
        data_type: the standard's number of the voxel type.
        bits_per_voxel: storage of one voxel.
        data_offset: bytes before the first voxel.
        qform_code: 0 if there is no rigid transform.
        sform_code: 0 if there is no affine transform.
        sform: 3 x 4 matrix from voxel indices to RAS mm.
        qform: quaternion (b, c, d) and offset (x, y, z).
        spacing_mm: distance of voxels along the first three dimensions, as stored.
    """

    size: tuple[int, ...]
    byte_order: str
    data_type: int
    bits_per_voxel: int
    data_offset: int
    qform_code: int
    sform_code: int
    sform: np.ndarray
    qform: tuple[float, ...]
    spacing_mm: tuple[float, ...]

    @property
    def bytes_needed(self) -> int:
        """Length of a complete file, uncompressed."""
        return self.data_offset + math.prod(self.size) * self.bits_per_voxel // 8

    @property
    def shear_degrees(self) -> float:
        """By how much the axes of the affine transform differ from right angles, or 0 without one."""
        lengths = np.linalg.norm(self.sform[:, :3], axis=0)
        if self.sform_code <= 0 or not np.all(lengths > 0):
            return 0.0
        return axes_shear_degrees(self.sform[:, :3] / lengths)


def axes_shear_degrees(directions: np.ndarray) -> float:
    """By how much the angle between any two unit columns of a 3 x 3 matrix differs from 90 degrees, at most."""
    cosines = np.abs(directions.T @ directions)[np.triu_indices(3, 1)]
    return float(np.degrees(np.arcsin(np.clip(cosines.max(), 0.0, 1.0))))


def read_nifti_header(path: Path) -> NiftiHeader | None:
    """Read the header of a .nii or .nii.gz file, or of a pair of .hdr and .img; None if there is none.

    Raises:
        VolumeError: if the file ends before its header does, or the header contradicts itself.
    """
    header_file = path.with_suffix(".hdr") if path.name.lower().endswith(".img") else path
    if not header_file.is_file():
        return None
    start = _first_bytes(header_file)
    for order in "<>":
        length = struct.unpack_from(order + "i", start)[0] if len(start) >= 4 else 0
        if length == 348 and len(start) >= 348:
            return _consistent(path, _parse_first_version(start, order))
        if length == 540 and len(start) >= 540:
            return _consistent(path, _parse_second_version(start, order))
        if length in (348, 540):
            raise VolumeError(f'The file "{path}" is cut off inside its header; copy or download it again.')
    return None


def _consistent(path: Path, header: NiftiHeader) -> NiftiHeader:
    """ITK goes by the type of the voxels, the length of a file by their bits: if these differ, both would be wrong."""
    expected = _BITS_OF_TYPE.get(header.data_type, header.bits_per_voxel)
    if header.bits_per_voxel != expected:
        raise VolumeError(
            f'The header of "{path}" is damaged: voxels of its type have {expected} bits, it says '
            f"{header.bits_per_voxel}. Get the file again."
        )
    places = [("voxel size", header.spacing_mm)]
    places += [("place in the patient (qform)", header.qform)] if header.qform_code > 0 else []
    places += [("place in the patient (sform)", header.sform)] if header.sform_code > 0 else []
    for meaning, numbers in places:
        if not np.all(np.isfinite(numbers)):
            raise VolumeError(f'The header of "{path}" is damaged: its {meaning} is not a number. Get the file again.')
    return header


def check_nifti_length(path: Path, header: NiftiHeader) -> None:
    """Make sure that all voxels are in the file.

    Raises:
        VolumeError: if some are missing.
    """
    if _content_length(_voxel_file(path), header.bytes_needed) < header.bytes_needed:
        raise VolumeError(f'The file "{path}" is cut off: some of its voxels are missing. Copy or download it again.')


def not_finite_voxels(path: Path, header: NiftiHeader) -> np.ndarray:
    """Positions, in the order of the file, of values that are not finite.

    Raises:
        VolumeError: if voxels are missing.
    """
    if header.data_type not in _FLOAT_TYPES:
        return np.zeros(0, dtype=np.int64)
    value_type = np.dtype(header.byte_order + _FLOAT_TYPES[header.data_type])
    count = math.prod(header.size)
    found, done = [np.zeros(0, dtype=np.int64)], 0
    with _content(_voxel_file(path)) as file:
        file.read(header.data_offset)
        while done < count:
            block = file.read(min(count - done, _READ_BLOCK) * value_type.itemsize)
            if len(block) < value_type.itemsize:
                raise VolumeError(f'The file "{path}" is cut off: some of its voxels are missing. Get it again.')
            values = np.frombuffer(block, dtype=value_type, count=len(block) // value_type.itemsize)
            found.append(done + np.flatnonzero(~np.isfinite(values)))
            done += len(values)
    return np.concatenate(found)


def _voxel_file(path: Path) -> Path:
    """The file with the voxels: of a pair it is the one beside the header."""
    beside = path.with_suffix(".img")
    return beside if path.name.lower().endswith(_PAIR_SUFFIXES) and beside.is_file() else path


def _content(path: Path) -> BinaryIO:
    """The file's content, unpacked if it is compressed."""
    with open(path, "rb") as file:
        start = file.read(2)
    return gzip.open(path, "rb") if start == b"\x1f\x8b" else open(path, "rb")


def _first_bytes(path: Path) -> bytes:
    try:
        with _content(path) as file:
            return file.read(_HEADER_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise VolumeError(f'The file "{path}" is cut off or damaged; copy or download it again.') from error


def _content_length(path: Path, needed: int) -> int:
    """Length of the content, uncompressed; for gzip by its trailer, and by unpacking if the trailer is not as hoped."""
    with open(path, "rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return path.stat().st_size
        file.seek(-4, 2)
        if struct.unpack("<I", file.read(4))[0] == needed % (1 << 32):
            return needed
    return _unpacked_length(path)


def _unpacked_length(path: Path) -> int:
    length = 0
    try:
        with gzip.open(path, "rb") as file:
            block = file.read(_READ_BLOCK)
            while block:
                length += len(block)
                block = file.read(_READ_BLOCK)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return 0
    return length


def _parse_first_version(start: bytes, order: str) -> NiftiHeader:
    dimensions = struct.unpack_from(order + "8h", start, 40)
    offset = struct.unpack_from(order + "f", start, 108)[0]
    if not np.isfinite(offset):
        raise VolumeError("The NIfTI header does not say where its voxels begin; the file is damaged, get it again.")
    # Without the magic number it is Analyze's header, which has no transform (and other things where NIfTI has it).
    has_transform = start[344:347] in (b"n+1", b"ni1")
    codes = struct.unpack_from(order + "2h", start, 252) if has_transform else (0, 0)
    return NiftiHeader(
        size=_positive_size(dimensions),
        byte_order=order,
        data_type=struct.unpack_from(order + "h", start, 70)[0],
        bits_per_voxel=struct.unpack_from(order + "h", start, 72)[0],
        data_offset=int(offset),
        qform_code=codes[0],
        sform_code=codes[1],
        sform=np.array(struct.unpack_from(order + "12f", start, 280)).reshape(3, 4),
        qform=struct.unpack_from(order + "6f", start, 256),
        spacing_mm=struct.unpack_from(order + "3f", start, 80)[: max(dimensions[0], 0)],
    )


def _parse_second_version(start: bytes, order: str) -> NiftiHeader:
    dimensions = struct.unpack_from(order + "8q", start, 16)
    return NiftiHeader(
        size=_positive_size(dimensions),
        byte_order=order,
        data_type=struct.unpack_from(order + "h", start, 12)[0],
        bits_per_voxel=struct.unpack_from(order + "h", start, 14)[0],
        data_offset=struct.unpack_from(order + "q", start, 168)[0],
        qform_code=struct.unpack_from(order + "i", start, 344)[0],
        sform_code=struct.unpack_from(order + "i", start, 348)[0],
        sform=np.array(struct.unpack_from(order + "12d", start, 400)).reshape(3, 4),
        qform=struct.unpack_from(order + "6d", start, 352),
        spacing_mm=struct.unpack_from(order + "3d", start, 112)[: max(dimensions[0], 0)],
    )


def _positive_size(dimensions: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(length, 1) for length in dimensions[1 : 1 + max(min(dimensions[0], 7), 0)])
