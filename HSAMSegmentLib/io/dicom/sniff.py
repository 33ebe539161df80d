"""Detect DICOM files by content, and identify files that only have a DICOM name."""

from __future__ import annotations

import os
import struct
from pathlib import Path

DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
FIRST_BYTES = 512
_VALUE_TYPES = {
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"OB", b"OW", b"PN", b"SH",
    b"SL", b"SQ", b"SS", b"ST", b"TM", b"UI", b"UL", b"UN", b"US", b"UT",
}  # fmt: skip
# First groups of a file without preamble: meta information, commands, identification.
_FIRST_GROUPS = (0x0002, 0x0008)
_CHAIN = 3
_LAST_FIRST_ELEMENT = 0x0070


def is_dicom_file(path: Path) -> bool:
    """Whether the content or the name of a file is DICOM (if only the name, `why_not_dicom` says what it is)."""
    return path.suffix.lower() in DICOM_SUFFIXES or has_dicom_content(path)


def has_dicom_content(path: Path) -> bool:
    """Whether a file has the DICOM prefix after its preamble, or begins with DICOM elements without a preamble."""
    try:
        with open(path, "rb") as file:
            return begins_like_dicom(file.read(FIRST_BYTES))
    except OSError:
        return False


def begins_like_dicom(start: bytes) -> bool:
    """Whether the first bytes of a file are DICOM."""
    return start[128:132] == b"DICM" or _is_element(start)


def why_not_dicom(path: Path) -> str:
    """What a file with a DICOM name really is, as the end of a sentence; empty if its content is DICOM."""
    if path.is_symlink() and not path.exists():
        return "is a link to a file that is not here (fetch it, with git annex get if it is one of git-annex)"
    if not os.access(path, os.R_OK):
        return "may not be read; check its permissions"
    if path.stat().st_size == 0:
        return "is empty; copy or download it again"
    if has_dicom_content(path):
        return ""
    with open(path, "rb") as file:
        start = file.read(FIRST_BYTES)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return "is a pointer file of Git LFS without content; fetch the content with git lfs pull"
    if text.startswith(b"/annex/objects/") or b".git/annex/objects/" in text:
        return "is a pointer file of git-annex without content; fetch the content with git annex get"
    if text.startswith((b"<!doctype", b"<html")):
        return "is a web page; download it again, signed in if the site asks for it"
    if not any(byte < 9 for byte in start):
        return "is a text file and no DICOM file; export or download it again"
    return "is not a DICOM file, or its beginning is damaged; copy or download it again"


def _is_element(start: bytes) -> bool:
    """Whether the bytes are the first element of a data set in one of the three uncompressed encodings."""
    if len(start) < 16:
        return False
    for order in "<>":
        group, element = struct.unpack(f"{order}HH", start[:4])
        if group not in _FIRST_GROUPS or element > _LAST_FIRST_ELEMENT:
            continue
        if start[4:6] in _VALUE_TYPES:
            return True
        if order == "<" and _is_chain(start):
            return True
    return False


def _is_chain(start: bytes) -> bool:
    """Whether implicit-VR elements follow each other: tags ascend, which voxels seldom do."""
    offset, count, before = 0, 0, (0, 0)
    while offset + 8 <= len(start):
        group, element, length = struct.unpack("<HHI", start[offset : offset + 8])
        if (group, element) <= before or group not in _FIRST_GROUPS or length % 2:
            break
        offset, count, before = offset + 8 + length, count + 1, (group, element)
    return count >= _CHAIN
