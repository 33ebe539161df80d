"""Where the pixels are in a DICOM file whose header was read up to them, so that plain ones need no second parsing."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PIXEL_GROUP, _PIXEL_DATA = 0x7FE0, 0x0010
_UNDEFINED_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True)
class PixelPlace:
    """Where the pixels of a file are.

    Attributes:
        offset: of the first byte, 0 where the pixels are not plain little-endian integers.
        length: in bytes, 0 likewise.
    """

    offset: int = 0
    length: int = 0


def find_pixels(file: BinaryIO, data: Dataset) -> PixelPlace | None:
    """Where the pixels are in a file that was read up to them; None if it ended without any."""
    syntax = getattr(getattr(data, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is not None and syntax.is_deflated:
        return PixelPlace()
    offset, head = file.tell(), file.read(12)
    if len(head) < 12:
        return None
    group, element = struct.unpack("<HH", head[:4])
    if group != _PIXEL_GROUP:
        return PixelPlace() if head[:2] == struct.pack(">H", _PIXEL_GROUP) else None
    if element != _PIXEL_DATA or syntax is None or syntax.is_encapsulated:
        return PixelPlace()
    # Some files are encoded otherwise than they say; the type in the element itself shows it (as a length it were odd).
    has_type = head[4:6] in (b"OW", b"OB")
    if not has_type and not syntax.is_implicit_VR:
        return PixelPlace()
    start = 12 if has_type else 8
    length = struct.unpack("<I", head[start - 4 : start])[0]
    return PixelPlace() if length == _UNDEFINED_LENGTH else PixelPlace(offset + start, length)
