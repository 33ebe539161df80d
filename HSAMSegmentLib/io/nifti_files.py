"""Read NIfTI and Analyze files: detected by content, decompressed once, with ITK's interpretation of the geometry.

ITK silently opens a sibling with the same stem instead of the file, pads truncated files with zeros, and replaces
non-finite values by zero. So it only ever sees the header, under a name of our own, and voxels are read here. Headers
are parsed by nibabel. Using ITK's geometry, Slicer and this program agree on every voxel.
"""

from __future__ import annotations

import math
import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.io.compressed_files import GZIP, unpacked_blocks
from HSAMSegmentLib.io.quiet_libraries import quiet_libraries

if TYPE_CHECKING:
    from nibabel.analyze import AnalyzeHeader

_HEADER_BYTES = 544
_MAGIC = {348: (slice(344, 347), (b"n+1", b"ni1")), 540: (slice(4, 7), (b"n+2", b"ni2"))}
_PAIR_SUFFIXES = (".hdr", ".img", ".hdr.gz", ".img.gz")
NIFTI_SUFFIXES = (".nii", ".nii.gz", *_PAIR_SUFFIXES)
_READ_BLOCK = 1 << 22
# Deflate compresses at most 1032-fold; a header that claims more is damaged, and no memory is allocated for it.
_MOST_PACKED = 1040
_VOXEL_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_NO_SCAN_TYPES = {
    1: "single bits; save it with 8 bits per voxel",
    32: "complex numbers; save the magnitude image and choose that",
    1792: "complex numbers; save the magnitude image and choose that",
    2048: "complex numbers; save the magnitude image and choose that",
    128: "colors, so it is a color picture, not a scan; choose the original gray-level image",
    2304: "colors, so it is a color picture, not a scan; choose the original gray-level image",
    1536: "floating-point numbers of 128 bits; save it with 32 or 64 bits",
}
_MM_PER_UNIT = {1: 1000.0, 3: 0.001}
"""Millimeters per unit of length, by header code: meters and micrometers."""


@dataclass(frozen=True)
class NiftiHeader:
    """The fields of a NIfTI or Analyze header that are used here.

    Attributes:
        size: lengths of all dimensions.
        byte_order: "<" or ">".
        data_type: code of the voxel type in the standard.
        bits_per_voxel: bits of one voxel.
        data_offset: bytes before the first voxel.
        slope, intercept: from stored to real values.
        qform_code: 0 without a rigid transform.
        sform_code: 0 without an affine transform.
        sform: 3 x 4 matrix from voxel indices to RAS mm.
        qform: quaternion (b, c, d) and offset (x, y, z), as stored.
        pixdim: voxel spacing along the first three dimensions, as stored.
        is_single: whether the voxels are in the same file.
    """

    size: tuple[int, ...]
    byte_order: str
    data_type: int
    bits_per_voxel: int
    data_offset: int
    slope: float
    intercept: float
    qform_code: int
    sform_code: int
    sform: np.ndarray
    qform: tuple[float, ...]
    pixdim: tuple[float, ...]
    is_single: bool

    @property
    def voxel_bytes(self) -> int:
        """Size of all voxels in bytes."""
        return math.prod(self.size) * self.bits_per_voxel // 8

    @property
    def is_scaled(self) -> bool:
        """Whether stored values need rescaling; a slope of 0 means no rescaling."""
        usable = math.isfinite(self.slope) and math.isfinite(self.intercept) and self.slope != 0.0
        return usable and (self.slope, self.intercept) != (1.0, 0.0)

    @property
    def shear_degrees(self) -> float:
        """Deviation of the axes of the affine transform from right angles; 0 without one."""
        lengths = np.linalg.norm(self.sform[:, :3], axis=0)
        if self.sform_code <= 0 or not np.all(lengths > 0):
            return 0.0
        return axes_shear_degrees(self.sform[:, :3] / lengths)


def axes_shear_degrees(directions: np.ndarray) -> float:
    """Largest deviation from 90 degrees of the angles between the unit columns of a 3 x 3 matrix."""
    cosines = np.abs(directions.T @ directions)[np.triu_indices(3, 1)]
    return float(np.degrees(np.arcsin(np.clip(cosines.max(), 0.0, 1.0))))


def read_nifti_header(path: Path) -> NiftiHeader | None:
    """Read the header of a NIfTI file, whatever its name, or of an Analyze file; None if it is neither.

    Raises:
        VolumeError: if the header is truncated or contradicts itself.
    """
    start = _first_bytes(header_file(path))
    length, order = _header_length(start)
    if length == 0:
        return None
    place, marks = _MAGIC[length]
    has_mark = start[place] in marks
    if not has_mark and not path.name.lower().endswith(NIFTI_SUFFIXES):
        return None
    if len(start) < length:
        raise VolumeError(f'The file "{path}" is cut off inside its header; copy or download it again.')
    return _consistent(path, _parsed(path, start[:length], order, has_mark))


def read_nifti_image(path: Path, header: NiftiHeader) -> sitk.Image:
    """Read voxels and geometry of a file with up to three dimensions as one SimpleITK image.

    Values keep the type of the file; rescaled ones become float32 (float64 if stored so), as in ITK.

    Raises:
        VolumeError: if the voxel type is not that of a scan, or if the file is damaged or truncated.
    """
    array = read_nifti_voxels(path, header)
    image = sitk.GetImageFromArray(array)
    place = nifti_geometry(path)
    if image.GetDimension() == 3 and place.GetDimension() == 3:
        image.SetSpacing(place.GetSpacing())
        image.SetOrigin(place.GetOrigin())
        image.SetDirection(place.GetDirection())
    return image


def nifti_geometry(path: Path) -> sitk.ImageFileReader:
    """ITK's interpretation of a header: size, spacing, origin and direction of an image.

    ITK reads the bare header under an unambiguous name. A negative voxel size, which the standard forbids and ITK would
    take for a flip, counts as positive, as in nibabel.

    Raises:
        VolumeError: if ITK does not understand the header.
    """
    start = bytearray(_first_version(_first_bytes(header_file(path))))
    _, order = _header_length(start)
    sizes = struct.unpack_from(f"{order}3f", start, 80)
    struct.pack_into(f"{order}3f", start, 80, *(abs(size) for size in sizes))
    is_pair = start[344:346] != b"n+"
    reader = sitk.ImageFileReader()
    with tempfile.TemporaryDirectory(prefix="hsamsegment-") as folder, quiet_libraries():
        stub = Path(folder) / ("header.hdr" if is_pair else "header.nii")
        stub.write_bytes(bytes(start[:348]) + bytes(4))
        if is_pair:
            (Path(folder) / "header.img").touch()
        reader.SetFileName(str(stub))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            text = str(error).lower()
            if "orthonormal" in text:
                raise VolumeError(
                    f'The axes of "{path.name}" are not at right angles; resample it onto a rectangular grid first.'
                ) from error
            raise VolumeError(f'The header of "{path.name}" is damaged; copy or download the file again.') from error
    return reader


def _first_version(start: bytes) -> bytes:
    """Convert a NIfTI-2 header to NIfTI-1, which every ITK reads."""
    import nibabel

    length, order = _header_length(start)
    if length == 348:
        return start
    newer = nibabel.Nifti2Header(start[:540], endianness=order, check=False)
    older = nibabel.Nifti1Header(endianness=order)
    for name in set(older) & set(newer) - {"sizeof_hdr", "magic", "vox_offset"}:
        older[name] = newer[name]
    return bytes(older.binaryblock)


def read_nifti_voxels(path: Path, header: NiftiHeader) -> np.ndarray:
    """Read real values, shape (k, j, i) or (j, i), decompressed once and verified against the checksum.

    Raises:
        VolumeError: as `read_nifti_image`.
    """
    if header.data_type not in _VOXEL_TYPES:
        kind = _NO_SCAN_TYPES.get(header.data_type, f"voxels of an unknown type ({header.data_type}); convert it")
        raise VolumeError(f'"{path.name}" holds {kind}.')
    voxels = _voxel_bytes(path, header)
    dtype = np.dtype(header.byte_order + _VOXEL_TYPES[header.data_type])
    lengths = header.size
    while len(lengths) > 3 and lengths[-1] == 1:
        lengths = lengths[:-1]
    array = np.frombuffer(voxels, dtype=dtype).reshape(lengths[::-1])
    if header.is_scaled:
        return _scaled(array, header)
    return array.astype(dtype.newbyteorder("="), copy=False)


def check_nifti_length(path: Path, header: NiftiHeader) -> None:
    """Ensure that the file holds all voxels.

    Raises:
        VolumeError: if some are missing.
    """
    _voxel_bytes(path, header)


def header_file(path: Path) -> Path:
    """The file with the header: in a pair, the one named so."""
    name = path.name
    for voxels, header in ((".img", ".hdr"), (".img.gz", ".hdr.gz")):
        if name.lower().endswith(voxels):
            beside = path.with_name(name[: -len(voxels)] + _like(name[-len(voxels) :], header))
            return beside if beside.is_file() else path
    return path


def _voxel_file(path: Path, header: NiftiHeader) -> Path:
    """The file with the voxels: in a pair, the one beside the header."""
    name = path.name
    if header.is_single:
        return path
    for suffix, voxels in ((".hdr", ".img"), (".hdr.gz", ".img.gz")):
        if name.lower().endswith(suffix):
            beside = path.with_name(name[: -len(suffix)] + _like(name[-len(suffix) :], voxels))
            if not beside.is_file():
                raise VolumeError(
                    f'The voxels of "{name}" are missing: there is no file "{beside.name}" beside it. Copy it, too.'
                )
            return beside
    return path


def _like(example: str, suffix: str) -> str:
    return suffix.upper() if example.isupper() else suffix


def _scaled(array: np.ndarray, header: NiftiHeader) -> np.ndarray:
    """Apply slope and intercept in double precision, slice by slice."""
    result = np.empty(array.shape, np.float64 if array.dtype.itemsize == 8 and array.dtype.kind == "f" else np.float32)
    for index in range(len(array)):
        result[index] = array[index].astype(np.float64) * header.slope + header.intercept
    return result


def _voxel_bytes(path: Path, header: NiftiHeader) -> bytearray:
    """Read all stored voxels of a file.

    Raises:
        VolumeError: if some are missing, or a compressed file is damaged.
    """
    file, needed, skipped = _voxel_file(path, header), header.voxel_bytes, header.data_offset
    is_packed = _starts_with_gzip(file)
    if file.stat().st_size * (_MOST_PACKED if is_packed else 1) < skipped + needed:
        raise _cut_off(path)
    result, filled = bytearray(needed), 0
    try:
        with open(file, "rb") as stream:
            for block in unpacked_blocks(stream) if is_packed else iter(lambda: stream.read(_READ_BLOCK), b""):
                used = block[skipped:] if skipped else block
                skipped = max(0, skipped - len(block))
                used = used[: needed - filled]
                result[filled : filled + len(used)] = used
                filled += len(used)
                if filled == needed and not is_packed:
                    break
    except zlib.error as error:
        raise VolumeError(
            f'The file "{path.name}" is cut off or damaged: its compressed voxels do not agree with their checksum. '
            "Copy or download it again."
        ) from error
    if filled < needed:
        raise _cut_off(path)
    return result


def _cut_off(path: Path) -> VolumeError:
    return VolumeError(f'The file "{path}" is cut off: some of its voxels are missing. Copy or download it again.')


def _starts_with_gzip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == GZIP


def _first_bytes(path: Path) -> bytes:
    """The beginning of the content, decompressed if needed.

    Raises:
        VolumeError: if it cannot be decompressed, or is compressed twice.
    """
    with open(path, "rb") as file:
        start = file.read(_HEADER_BYTES)
        if not start.startswith(GZIP):
            return start
        file.seek(0)
        start = b""
        try:
            for block in unpacked_blocks(file, _HEADER_BYTES):
                start += block
                if len(start) >= _HEADER_BYTES:
                    break
        except zlib.error as error:
            if len(start) < _HEADER_BYTES:
                raise VolumeError(f'The file "{path}" is cut off or damaged; copy or download it again.') from error
    if start.startswith(GZIP):
        raise VolumeError(f'"{path.name}" was compressed twice (gzip inside of gzip); unpack it once with gunzip.')
    return start[:_HEADER_BYTES]


def _header_length(start: bytes | bytearray) -> tuple[int, str]:
    """Length of the header and its byte order; 0 if it is not a header."""
    for order in "<>":
        length = struct.unpack_from(order + "i", start)[0] if len(start) >= 4 else 0
        if length in _MAGIC:
            return length, order
    return 0, "<"


def _parsed(path: Path, start: bytes, order: str, has_mark: bool) -> NiftiHeader:
    import nibabel

    classes = {348: nibabel.Nifti1Header if has_mark else nibabel.AnalyzeHeader, 540: nibabel.Nifti2Header}
    kind: Any = classes[len(start)]
    fields: AnalyzeHeader = kind(start, endianness=order, check=False)
    offset = float(fields["vox_offset"])
    if not math.isfinite(offset):
        raise VolumeError(
            f'The header of "{path.name}" does not say where its voxels begin; the file is damaged, get it again.'
        )
    dimensions = [int(length) for length in fields["dim"]]
    count = max(min(dimensions[0], 7), 0)
    factor = _MM_PER_UNIT.get(int(fields["xyzt_units"]) & 7, 1.0) if has_mark else 1.0
    affine = [[float(value) for value in fields[f"srow_{axis}"]] for axis in "xyz"] if has_mark else np.zeros((3, 4))
    quaternion = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    return NiftiHeader(
        size=tuple(max(length, 1) for length in dimensions[1 : 1 + count]),
        byte_order=order,
        data_type=int(fields["datatype"]),
        bits_per_voxel=int(fields["bitpix"]),
        data_offset=max(int(offset), 0),
        slope=float(fields["scl_slope"]) if has_mark else 1.0,
        intercept=float(fields["scl_inter"]) if has_mark else 0.0,
        qform_code=int(fields["qform_code"]) if has_mark else 0,
        sform_code=int(fields["sform_code"]) if has_mark else 0,
        sform=np.array(affine, dtype=np.float64) * factor,
        qform=tuple(float(fields[name]) for name in quaternion) if has_mark else (0.0,) * 6,
        pixdim=tuple(float(value) for value in fields["pixdim"][1 : 1 + min(count, 3)]),
        is_single=has_mark and bytes(start[_MAGIC[len(start)][0]])[:2] == b"n+",
    )


def _consistent(path: Path, header: NiftiHeader) -> NiftiHeader:
    """Check that type and bits agree: ITK uses the voxel type, file lengths use the bits."""
    if header.data_type in _VOXEL_TYPES:
        expected = 8 * np.dtype(_VOXEL_TYPES[header.data_type]).itemsize
        if header.bits_per_voxel != expected:
            raise VolumeError(
                f'The header of "{path}" is damaged: voxels of its type have {expected} bits, it says '
                f"{header.bits_per_voxel}. Get the file again."
            )
    places: list[tuple[str, Any]] = [("voxel size", header.pixdim)]
    places += [("place in the patient (qform)", header.qform)] if header.qform_code > 0 else []
    places += [("place in the patient (sform)", header.sform)] if header.sform_code > 0 else []
    for meaning, numbers in places:
        if not np.all(np.isfinite(numbers)):
            raise VolumeError(f'The header of "{path}" is damaged: its {meaning} is not a number. Get the file again.')
    return header
