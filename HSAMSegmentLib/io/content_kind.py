"""Files that are named as images and are something else, told by their first bytes: pointers, web pages, archives."""

from __future__ import annotations

import os
from pathlib import Path

_START_BYTES = 1024
_POINTER_BYTES = 4096
_AGAIN = "download the image again, signed in where that is needed"
_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "is a pointer of Git LFS and not the image itself; run 'git lfs pull' to get it"),
    (b"%pdf", "is a PDF document and not an image; choose the scan"),
    (b"pk\x03\x04", "is a ZIP archive; unpack it and choose the image in it"),
    (b"rar!", "is a RAR archive; unpack it and choose the image in it"),
    (b"7z\xbc\xaf", "is a 7z archive; unpack it and choose the image in it"),
    (b"bzh", "is compressed with bzip2, which image formats do not use; unpack it with bunzip2"),
    (b"\xfd7zxz", "is compressed with xz, which image formats do not use; unpack it with unxz"),
    (b"(\xb5/\xfd", "is compressed with zstd, which image formats do not use; unpack it with zstd -d"),
    (b"<!doctype html", f"is a web page and not an image; {_AGAIN}"),
    (b"<html", f"is a web page and not an image; {_AGAIN}"),
    (b"<?xml", f"is an XML document and not an image; {_AGAIN}"),
    (b"\0\5\x16\7", "holds attributes of macOS and not an image; choose the file without '._' in front"),
)


def content_problem(path: Path) -> str:
    """Why a file is not an image, as a sentence; empty if its first bytes do not tell.

    Args:
        path: a readable file, or a link without content.
    """
    if path.is_symlink() and not path.exists():
        return f'"{path.name}" is a link without content{_where_to_get(os.readlink(path))}.'
    with open(path, "rb") as file:
        start = file.read(_START_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    size = path.stat().st_size
    if b"annex/objects" in start and size < _POINTER_BYTES:
        return f"\"{path.name}\" is a pointer of git-annex and not the image itself; run 'git annex get' to get it."
    for mark, meaning in _STARTS:
        if start.startswith(mark):
            return f'"{path.name}" {meaning}.'
    if start.startswith((b"{", b"[")) and b"\0" not in start:
        return f'"{path.name}" is a JSON document and not an image; {_AGAIN}.'
    return ""


def _where_to_get(target: str) -> str:
    if "annex" in target:
        return " (git-annex); run 'git annex get' to get it"
    return f": {target} does not exist; copy the file itself"
