"""Validate uploads: an image file, a DICOM file, or a ZIP archive of DICOM files. Nothing in them is trusted."""

from __future__ import annotations

import errno
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.io.dicom.sniff import FIRST_BYTES, begins_like_dicom
from HSAMSegmentLib.io.image_files import IMAGE_SUFFIXES
from HSAMSegmentLib.runtime.atomic_files import explain_write_error
from HSAMSegmentLib.runtime.disk import CHUNK_BYTES, format_bytes, require_free_space
from HSAMSegmentLib.service.settings import Limits

SINGLE_FILE_SUFFIXES = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix not in (".nhdr", ".mhd", ".hdr", ".img"))
"""Single-file formats, with header and voxels together."""

_ZIP_START = b"PK\x03\x04"
_EMPTY_ZIP_START = b"PK\x05\x06"
_GZIP_START = b"\x1f\x8b"
_NIFTI_MARKS = (b"n+1\0", b"ni1\0")
_ENCRYPTED = 0x1
_SYMLINK_MODE = 0o120000
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)
_WHAT_IS_TAKEN = (
    f"Send a scan as one file ({', '.join(SINGLE_FILE_SUFFIXES)} or DICOM), or a ZIP archive with the DICOM files of a "
    "series."
)


def prepare_scan(upload: Path, folder: Path, limits: Limits, between_chunks: Callable[[], None]) -> Path:
    """Turn an upload into a readable scan.

    The client's file name is ignored: the content decides. Files in an archive are renamed to numbers, so that no path
    in it can lead anywhere.

    Args:
        upload: the uploaded file; it is moved or deleted.
        folder: an existing folder for the scan.
        limits: limits on the size of an unpacked archive.
        between_chunks: called every megabyte; may raise to stop.

    Returns:
        A file in `folder`, or a new subfolder with DICOM files.

    Raises:
        VolumeError: if it is of no known kind, damaged, or exceeds the limits.
        OutputError: if the disk is too small for the content of an archive.
    """
    with open(upload, "rb") as stream:
        start = stream.read(FIRST_BYTES)
    if not start:
        raise VolumeError(f"The upload is empty. {_WHAT_IS_TAKEN}")
    if start.startswith((_ZIP_START, _EMPTY_ZIP_START)):
        scan = _Archive(upload, limits, between_chunks).unpack(folder)
        upload.unlink()
        return scan
    suffix = _suffix_of(start)
    if not suffix:
        raise VolumeError(f"The upload is not an image that this service can read. {_WHAT_IS_TAKEN}")
    return upload.replace(folder / f"scan{suffix}")


def _suffix_of(start: bytes) -> str:
    """File name suffix of a format, from the first bytes of the file; empty if unknown."""
    if start.startswith(b"NRRD"):
        return ".nrrd"
    if start.startswith(_GZIP_START):
        return ".nii.gz"
    if begins_like_dicom(start):
        return ".dcm"
    if start[344:348] in _NIFTI_MARKS or start[4:8] in (b"n+2\0", b"ni2\0"):
        return ".nii"
    return ".mha" if re.match(rb"\s*(ObjectType|NDims)\s*=", start) else ""


class _Archive:
    """A ZIP archive that is unpacked without trusting its own metadata."""

    def __init__(self, path: Path, limits: Limits, between_chunks: Callable[[], None]) -> None:
        self._path = path
        self._limits = limits
        self._between_chunks = between_chunks
        self._left = limits.unpacked_bytes

    def unpack(self, folder: Path) -> Path:
        """Write the DICOM files of the archive to a new folder; an archive with one image yields that file."""
        try:
            with zipfile.ZipFile(self._path) as archive:
                return self._unpack(archive, folder)
        except _UNREADABLE as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise explain_write_error(error, folder) from error
            raise VolumeError(
                f"The ZIP archive is damaged, incomplete, or packed in a way that is not known "
                f"({type(error).__name__}). Pack it again."
            ) from error

    def _unpack(self, archive: zipfile.ZipFile, folder: Path) -> Path:
        entries = [entry for entry in archive.infolist() if _may_be_a_scan(entry)]
        self._check(entries, folder)
        target = folder / "dicom"
        target.mkdir()
        images = [path for number, entry in enumerate(entries) for path in self._write(archive, entry, target, number)]
        if any(path.suffix == ".dcm" for path in images):
            for path in images:
                if path.suffix != ".dcm":
                    path.unlink()
            return target
        if len(images) == 1:
            return images[0]
        if images:
            raise VolumeError(f"The ZIP archive holds {len(images)} images; send one scan at a time.")
        raise VolumeError(f"The ZIP archive holds no scan. {_WHAT_IS_TAKEN}")

    def _check(self, entries: list[zipfile.ZipInfo], folder: Path) -> None:
        """Reject what the table of contents already reveals, before anything is unpacked."""
        if len(entries) > self._limits.files:
            raise VolumeError(
                f"The ZIP archive holds {len(entries)} files, and this service takes {self._limits.files} at most."
            )
        if any(entry.flag_bits & _ENCRYPTED for entry in entries):
            raise VolumeError("The ZIP archive is locked with a password. Pack it again without one.")
        stated = sum(entry.file_size for entry in entries)
        if stated > self._limits.unpacked_bytes:
            raise self._too_large()
        require_free_space(folder, stated, "Unpacking the ZIP archive")

    def _write(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, number: int) -> list[Path]:
        """Unpack one file if it begins like a scan; return a list of none or one."""
        with archive.open(entry) as source:
            start = source.read(FIRST_BYTES)
            suffix = _suffix_of(start)
            if not suffix:
                return []
            path = target / f"{number:06d}{suffix}"
            with open(path, "xb") as output:
                self._copy(start, source, output)
        return [path]

    def _copy(self, start: bytes, source: IO[bytes], output: BinaryIO) -> None:
        """Copy what is really unpacked, which may be more than the table of contents said."""
        chunk = start
        while chunk:
            self._between_chunks()
            self._left -= len(chunk)
            if self._left < 0:
                raise self._too_large()
            output.write(chunk)
            chunk = source.read(CHUNK_BYTES)

    def _too_large(self) -> VolumeError:
        return VolumeError(
            f"The ZIP archive unpacks to more than {format_bytes(self._limits.unpacked_bytes)}, which is the limit of "
            "this service. Send a single series."
        )


def _may_be_a_scan(entry: zipfile.ZipInfo) -> bool:
    """Whether an entry is a plain, visible file, judged by its name alone."""
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    is_link = (entry.external_attr >> 16) & 0o170000 == _SYMLINK_MODE
    is_hidden = any(part.startswith(".") and part not in (".", "..") for part in path.parts)
    return not (entry.is_dir() or is_link or is_hidden or "__MACOSX" in path.parts or path.name.upper() == "DICOMDIR")
