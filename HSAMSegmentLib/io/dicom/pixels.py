"""Decode the pixels of DICOM files by their own headers: bits, sign and scale of every file and every frame.

ITK gives all slices of a series the type of the first and rescales only some SOP classes, so pydicom reads what it can;
for compressions that need a decoder, GDCM (through ITK) yields the stored values, which are checked against the header.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.io.dicom.header import DicomHeader, Storage
from HSAMSegmentLib.io.quiet_libraries import quiet_libraries

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_CUT_NOTE = "Some stored values need more bits than the header allows (BitsStored); the bits above were cut off."
_JPEG_2000_START, _SIGN_OFFSET, _SEARCHED_BYTES = b"\xff\x4f\xff\x51", 42, 4096
_RESCALING = ("RescaleSlope", "RescaleIntercept", "RealWorldValueMappingSequence")


def read_values(headers: Sequence[DicomHeader]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read the real values [k, j, i] of the images of files, in order, with notes.

    Raises:
        VolumeError: if a file cannot be decoded, or its values contradict its header.
    """
    for header in headers:
        _check_scale(header)
    first = headers[0]
    kind = np.result_type(*{value_type(header.storage, scale) for header in headers for scale in _scales(header)})
    count = sum(header.frames for header in headers)
    values = np.empty((count, first.size[1], first.size[0]), kind)
    notes: set[str] = set()
    start = 0
    with quiet_libraries():
        for header in headers:
            stored, cut = _stored_or_reason(header)
            if stored.dtype.kind == "f" and kind.kind != "f":
                kind = np.result_type(stored.dtype, np.float32)
                values = values.astype(kind)
            for frame, scale in zip(stored, _scales(header)):
                values[start] = _scaled(frame, scale, kind)
                start += 1
            notes |= {_CUT_NOTE} if cut else set()
    return values, tuple(sorted(notes))


def value_type(storage: Storage, rescale: tuple[float, float]) -> np.dtype:
    """The smallest usual type for all values that a file can hold."""
    if storage.has_table:
        return np.dtype(np.float32)
    slope, intercept = rescale
    if not (slope.is_integer() and intercept.is_integer()):
        return np.dtype(np.float32 if storage.bits_stored <= 16 else np.float64)
    bits = storage.bits_stored - storage.is_signed
    ends = (0 if not storage.is_signed else -(2**bits), 2**bits - 1)
    low, high = sorted(slope * end + intercept for end in ends)
    for kind in (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.float64)


def _check_scale(header: DicomHeader) -> None:
    if not np.isfinite(_scales(header)).all():
        raise VolumeError(
            f'The scale of the values of "{header.path.name}" (RescaleSlope, RescaleIntercept) is not a number; export '
            "the series again."
        )


def _check_described(header: DicomHeader) -> None:
    if not header.storage.is_described:
        raise VolumeError(
            f'"{header.path.name}" does not say how its values are stored (BitsAllocated, PixelRepresentation), so '
            "they cannot be read for sure; export the series again."
        )


def _scales(header: DicomHeader) -> list[tuple[float, float]]:
    """Slope and intercept of each image in a file."""
    if header.frame_places:
        return [place.rescale for place in header.frame_places]
    return [header.storage.rescale] * header.frames


def _scaled(stored: np.ndarray, rescale: tuple[float, float], kind: np.dtype) -> np.ndarray:
    slope, intercept = rescale
    if (slope, intercept) == (1.0, 0.0):
        return stored
    if kind.kind == "f":
        return stored * slope + intercept
    return stored.astype(np.int64 if kind.itemsize > 4 else np.int32) * int(slope) + int(intercept)


def _stored_or_reason(header: DicomHeader) -> tuple[np.ndarray, bool]:
    try:
        return _stored(header)
    except VolumeError:
        raise
    except MemoryError as error:
        raise VolumeError(
            f'"{header.path.name}" does not fit into this computer\'s memory; crop or resample it first.'
        ) from error
    except Exception as error:
        raise VolumeError(
            f'"{header.path.name}" cannot be decoded: damaged or cut off, or a compression that is not supported; '
            "export it again without compression, or convert it with dcm2niix."
        ) from error


def _stored(header: DicomHeader) -> tuple[np.ndarray, bool]:
    """Stored values [frame, j, i] of a file, and whether excess bits were masked."""
    if _is_plain(header):
        stored, is_cut = _significant(_plain(header), header.storage)
        return stored, is_cut and not _has_overlay_bits(_whole(header))
    data = _whole(header)
    syntax = _transfer_syntax(data)
    if syntax.is_encapsulated and syntax.name != "RLE Lossless":
        stored = _decoded(header, data)
    else:
        stored = data.pixel_array
    stored = stored.reshape(-1, *stored.shape[-2:])
    if stored.shape != _shape(header):
        raise ValueError(f"the image has the shape {stored.shape}")
    if header.storage.has_table:
        return _by_table(stored, data), False
    stored, is_cut = _significant(stored, header.storage)
    return stored, is_cut and not _has_overlay_bits(data)


def _whole(header: DicomHeader) -> Dataset:
    from pydicom import dcmread

    return dcmread(header.path, force=True)


def _shape(header: DicomHeader) -> tuple[int, int, int]:
    return (header.frames, header.size[1], header.size[0])


def _is_plain(header: DicomHeader) -> bool:
    """Whether the pixels are plain consecutive integers, as in most files."""
    storage = header.storage
    usual = storage.bits_allocated in (8, 16, 32) and storage.samples == 1 and not storage.has_table
    return usual and header.pixels is not None and header.pixels.offset > 0


def _plain(header: DicomHeader) -> np.ndarray:
    _check_described(header)
    kind = np.dtype(f"<{'i' if header.storage.is_signed else 'u'}{header.storage.bits_allocated // 8}")
    count = int(np.prod(_shape(header)))
    if header.pixels is None or header.pixels.length < count * kind.itemsize:
        raise ValueError("the image is shorter than the header says")
    return np.fromfile(header.path, kind, count, offset=header.pixels.offset).reshape(_shape(header))


def _transfer_syntax(data: Dataset) -> Any:
    """The transfer syntax, added to the file's meta information if an old archive omitted it."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    meta = getattr(data, "file_meta", None)
    if meta is None:
        meta = data.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" not in meta:
        explicit = ExplicitVRLittleEndian if data.is_little_endian else ExplicitVRBigEndian
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if data.is_implicit_VR else explicit
    return meta.TransferSyntaxUID


def _decoded(header: DicomHeader, data: Dataset) -> np.ndarray:
    """Stored values of a compressed file from GDCM, without its rescaling, which depends on the SOP class."""
    _check_described(header)
    if header.storage.rescale == (1.0, 0.0) and not any(keyword in data for keyword in _RESCALING[2:]):
        stored = _by_gdcm(header.path)
    else:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "unscaled.dcm"
            _without_scale(data).save_as(copy)
            stored = _by_gdcm(copy)
    expected = "i" if header.storage.is_signed else "u"
    if stored.dtype.kind != expected or _kind_in_jpeg_2000(data) not in ("", expected):
        raise VolumeError(
            f'The compressed values of "{header.path.name}" are of another type than its header says (with or without '
            "a sign); export it again without compression."
        )
    return stored


def _kind_in_jpeg_2000(data: Dataset) -> str:
    """ "i" or "u" for signed or unsigned values as declared in a JPEG 2000 image; empty for other compressions.

    The sign is in the last byte of the SIZ marker segment (ISO/IEC 15444-1, A.5.1), which begins the image.
    """
    start = data.PixelData.find(_JPEG_2000_START, 0, _SEARCHED_BYTES)
    if start < 0:
        return ""
    return "i" if data.PixelData[start + _SIGN_OFFSET] & 0x80 else "u"


def _without_scale(data: Dataset) -> Dataset:
    for keyword in _RESCALING:
        if keyword in data:
            delattr(data, keyword)
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for item in data.get(groups) or ():
            for keyword in ("PixelValueTransformationSequence", "RealWorldValueMappingSequence"):
                if keyword in item:
                    delattr(item, keyword)
    return data


def _by_gdcm(path: Path) -> np.ndarray:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return sitk.GetArrayFromImage(reader.Execute())


def _significant(stored: np.ndarray, storage: Storage) -> tuple[np.ndarray, bool]:
    """The values reduced to their stored bits, with their sign, and whether higher bits were in use."""
    spare_above = storage.bits_allocated - 1 - storage.high_bit
    spare = storage.bits_allocated - storage.bits_stored
    if spare == 0 or stored.dtype.kind == "f":
        return stored, False
    if stored.itemsize * 8 != storage.bits_allocated:
        raise ValueError(f"values of {stored.itemsize} bytes where {storage.bits_allocated} bits were announced")
    kept = np.right_shift(np.left_shift(stored, spare_above), spare)
    return kept, spare_above == spare and bool(np.any(kept != stored))


def _has_overlay_bits(data: Dataset) -> bool:
    return any((group, 0x0102) in data and (group, 0x3000) not in data for group in range(0x6000, 0x6020, 2))


def _by_table(stored: np.ndarray, data: Dataset) -> np.ndarray:
    from pydicom.pixel_data_handlers.util import apply_modality_lut

    array: np.ndarray = apply_modality_lut(stored, data).astype(np.float32)
    return array
