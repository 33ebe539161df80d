"""Detect the kind of a weights file from its first bytes and its directory, before anything in it is interpreted.

Weights files come from colleagues, proxies and broken downloads. Everything here reads a few kilobytes, executes
nothing and needs no torch.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.runtime.disk import format_bytes

SAFETENSORS = "safetensors"
TORCH_ZIP = "torch zip"
TORCH_LEGACY = "torch pickle"

MAX_ZIP_ENTRIES = 20_000
MAX_PICKLE_BYTES = 4 << 20
MAX_JSON_HEADER_BYTES = 100 << 20
# Weights hardly compress, and torch stores them uncompressed; an archive that claims more is a zip bomb.
MAX_UNFOLDING = 4.0

_PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_TEXT_BYTES = set(range(32, 127)) | {9, 10, 13}


def file_kind(path: Path) -> str:
    """Detect the container format of a weights file by its content.

    Returns:
        `SAFETENSORS`, `TORCH_ZIP` or `TORCH_LEGACY`.

    Raises:
        CheckpointError: if the file is unreadable or none of these; the message says what it is instead.
    """
    path = Path(path)
    start, size = _read_start(path)
    if size == 0:
        raise CheckpointError(f"{path.name} is empty. Download or copy it again.")
    if start.startswith(b"PK\x03\x04"):
        _check_zip(path, size)
        return TORCH_ZIP
    # The first bytes are the length of a header, and some lengths equal the start of a pickle.
    if _looks_like_safetensors(start, size):
        return SAFETENSORS
    if start.startswith(_PICKLE_STARTS):
        return TORCH_LEGACY
    raise CheckpointError(_what_else(path, start))


def _read_start(path: Path) -> tuple[bytes, int]:
    """The first kilobyte of a file, and its size in bytes."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; choose a file of weights (.safetensors, .pth, .pt).")
    try:
        with open(path, "rb") as stream:
            return stream.read(1024), path.stat().st_size
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no file {path}.") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}).") from error


def looks_like_web_page(start: bytes) -> bool:
    """Whether these first bytes of a file are those of an HTML page (a proxy's or a login page)."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return text.startswith((b"<!doctype html", b"<html", b"<head", b"<script", b"<!--"))


def _what_else(path: Path, start: bytes) -> str:
    """The message for a file that holds no weights."""
    if looks_like_web_page(start):
        return (
            f"{path.name} is a web page, not a file of weights: a login page or a proxy answered in place of the "
            "download. Open the address in a browser and download the file again."
        )
    if start.startswith(b"version https://git-lfs"):
        return f"{path.name} is only a Git LFS pointer to the file of weights. Download the file itself."
    if not any(start):
        return f"{path.name} starts with zeros: its download was probably interrupted. Download it again."
    if all(byte in _TEXT_BYTES for byte in start):
        return f"{path.name} is a text file, not a file of weights."
    if start.startswith(b"\x1f\x8b"):
        return f"{path.name} is a compressed archive (gzip). Unpack it and choose the file of weights in it."
    return f"{path.name} is not a file of weights (expected .safetensors, .pth or .pt)."


def _looks_like_safetensors(start: bytes, size: int) -> bool:
    """Whether the file begins like safetensors: the length of its JSON header, then the header."""
    return len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= MAX_JSON_HEADER_BYTES


def read_safetensors_header(path: Path) -> dict[str, Any]:
    """Read the JSON header of a safetensors file, and check the length of the file against it.

    Returns:
        `__metadata__` (texts by name) and, for each tensor, its dtype, shape and data_offsets.

    Raises:
        CheckpointError: if the file is truncated or its header is damaged.
    """
    size = path.stat().st_size
    with open(path, "rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
        text = stream.read(header_bytes)
    if len(text) < header_bytes:
        raise CheckpointError(f"{path.name} is truncated ({format_bytes(size)}). Download or copy it again.")
    try:
        header = json.loads(text)
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        needed = 8 + header_bytes + max((int(entry["data_offsets"][1]) for entry in entries), default=0)
        dict(header.get("__metadata__", {}))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise CheckpointError(f"{path.name} is damaged: its header cannot be read. Copy it again.") from error
    if size < needed:
        raise CheckpointError(
            f"{path.name} is truncated: it has {format_bytes(size)} of {format_bytes(needed)}. "
            "Download or copy it again."
        )
    found: dict[str, Any] = header
    return found


def _check_zip(path: Path, size: int) -> None:
    """Check a zip's directory against the file before anything is decompressed.

    Raises:
        CheckpointError: if the file is truncated, expands to far more than its size, or is not a torch file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"{path.name} is truncated or damaged ({format_bytes(size)}): the directory at its end is missing. "
            "Download or copy it again."
        ) from error
    _check_zip_entries(path, size, entries)


def _check_zip_entries(path: Path, size: int, entries: list[zipfile.ZipInfo]) -> None:
    unfolded = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if len(entries) > MAX_ZIP_ENTRIES or packed > size or unfolded > MAX_UNFOLDING * size:
        raise CheckpointError(
            f"{path.name} was refused: a file of {format_bytes(size)} claims to hold {len(entries)} entries of "
            f"{format_bytes(unfolded)} together, as no file of weights does. It was not unpacked."
        )
    names = {entry.filename for entry in entries}
    if any(name.rsplit("/", 1)[-1] == "constants.pkl" for name in names):
        raise CheckpointError(
            f"{path.name} is a TorchScript program, not plain weights; programs are not loaded. "
            "Ask for the weights (a state dict)."
        )
    pickles = [entry for entry in entries if entry.filename.rsplit("/", 1)[-1] == "data.pkl"]
    if len(pickles) != 1 or len(names) != len(entries):
        raise CheckpointError(f"{path.name} is a zip archive, but no file of weights made by PyTorch.")
    if pickles[0].file_size > MAX_PICKLE_BYTES:
        raise CheckpointError(
            f"{path.name} was refused: its table of contents alone takes {format_bytes(pickles[0].file_size)}."
        )
