"""Check the integrity of compressed image files.

ITK's readers stop once they have all voxels, before the checksum (NRRD), or ignore decompression errors (MetaImage,
which then returns whatever is in memory), so a single damaged byte silently changes voxels.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from HSAMSegmentLib.errors import VolumeError

_BLOCK_BYTES = 1 << 20
_LONGEST_LINE = 1 << 20
_MOST_LINES = 100_000
_ANY_WRAPPER = zlib.MAX_WBITS | 32  # zlib or gzip, detected from the first bytes
GZIP = b"\x1f\x8b"
_METAIMAGE_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}


@dataclass(frozen=True)
class _Packed:
    """Position of compressed voxels, and their minimum size when decompressed."""

    path: Path
    offset: int
    bytes_needed: int


def check_compressed(path: Path) -> None:
    """Ensure that the voxels of a compressed file decompress completely and match their checksum.

    Uncompressed files, and anything unknown, are left to the reader.

    Raises:
        VolumeError: if the compressed voxels are damaged or incomplete.
    """
    packed = _packed_voxels(path)
    if packed is None or not packed.path.is_file():
        return
    try:
        with open(packed.path, "rb") as file:
            file.seek(packed.offset)
            length = sum(len(block) for block in unpacked_blocks(file))
    except zlib.error as error:
        raise _damaged(packed.path) from error
    if length < packed.bytes_needed:
        raise _damaged(packed.path)


def _damaged(path: Path) -> VolumeError:
    return VolumeError(
        f'The file "{path.name}" is cut off or damaged: its compressed voxels do not agree with their checksum. Copy '
        "or download it again."
    )


def unpacked_blocks(file: BinaryIO, block_bytes: int = _BLOCK_BYTES) -> Iterator[bytes]:
    """Decompress all streams from here on, block by block.

    Never holds more than a block, since a background of zeros is compressed a thousandfold.

    Raises:
        zlib.error: if a stream is damaged, truncated, or does not match its checksum.
    """
    unpacker = zlib.decompressobj(_ANY_WRAPPER)
    waiting = file.read(_BLOCK_BYTES)
    while True:
        piece = unpacker.decompress(waiting, block_bytes)
        if piece:
            yield piece
        if unpacker.eof:
            rest = unpacker.unused_data + (file.read(_BLOCK_BYTES) if len(unpacker.unused_data) < 2 else b"")
            if not rest.startswith(GZIP):  # a gzip file may have several members; anything else is padding
                return
            waiting, unpacker = rest, zlib.decompressobj(_ANY_WRAPPER)
            continue
        waiting = unpacker.unconsumed_tail or file.read(_BLOCK_BYTES)
        if not waiting and not piece:
            raise zlib.error("the data end too early")


def _packed_voxels(path: Path) -> _Packed | None:
    finders: dict[tuple[str, ...], Callable[[Path, BinaryIO], _Packed | None]] = {
        (".nrrd", ".nhdr"): _packed_nrrd,
        (".mha", ".mhd"): _packed_metaimage,
    }
    for suffixes, find in finders.items():
        if path.name.lower().endswith(suffixes):
            with open(path, "rb") as file:
                return find(path, file)
    return None


def _packed_nrrd(path: Path, file: BinaryIO) -> _Packed | None:
    if not file.readline(_LONGEST_LINE).startswith(b"NRRD"):
        return None
    fields: dict[str, str] = {}
    for _ in range(_MOST_LINES):
        line = file.readline(_LONGEST_LINE).rstrip(b"\r\n")
        if not line:
            break
        key, separator, value = line.decode("latin-1").partition(": ")
        if separator and not key.startswith("#"):
            fields[key.strip().lower().replace(" ", "")] = value.strip()
    if fields.get("encoding", "").lower() not in ("gzip", "gz") or fields.get("lineskip", "0") != "0":
        return None
    return _attached_or_beside(path, fields.get("datafile", ""), file.tell(), bytes_needed=0)


def _packed_metaimage(path: Path, file: BinaryIO) -> _Packed | None:
    fields: dict[str, str] = {}
    for _ in range(_MOST_LINES):
        line = file.readline(_LONGEST_LINE)
        key, _separator, value = line.decode("latin-1").partition("=")
        fields[key.strip()] = value.strip()
        if not line or key.strip() == "ElementDataFile":
            break
    if fields.get("CompressedData", "").lower() not in ("true", "1") or "HeaderSize" in fields:
        return None
    named = fields.get("ElementDataFile", "")
    return _attached_or_beside(path, "" if named.upper() == "LOCAL" else named, file.tell(), _metaimage_bytes(fields))


def _metaimage_bytes(fields: dict[str, str]) -> int:
    """Minimum size of all voxels in bytes; 0 if the header does not say."""
    kind = fields.get("ElementType", "").upper()
    for prefix in ("MET_", "U"):
        kind = kind[len(prefix) :] if kind.startswith(prefix) else kind
    try:
        voxels = math.prod(int(length) for length in fields.get("DimSize", "0").split())
        return voxels * int(fields.get("ElementNumberOfChannels", "1")) * _METAIMAGE_BYTES.get(kind, 0)
    except ValueError:
        return 0


def _attached_or_beside(path: Path, named: str, offset: int, bytes_needed: int) -> _Packed | None:
    """The voxels after the header, or in the one file that it names; None for lists and patterns of files."""
    if not named:
        return _Packed(path, offset, bytes_needed)
    if "%" in named or named.upper().startswith("LIST"):
        return None
    return _Packed(path.parent / named, 0, bytes_needed)
