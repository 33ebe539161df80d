"""Writes DICOM files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset


def write_dicom(data: Dataset, path: Path) -> None:
    """Write an object with preamble and complete meta information, as PS3.10 asks, in its transfer syntax.

    Args:
        data: the object; its `file_meta` names transfer syntax, class and instance.
        path: the file.

    Raises:
        AttributeError, ValueError: if the meta information is incomplete.
        OSError: if the file cannot be written.
    """
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

    if int(pydicom.__version__.partition(".")[0]) >= 3:
        data.save_as(path, enforce_file_format=True)
        return
    # Version 2 is the last for Python 3.9. It has another name for this, and does not look at the transfer syntax.
    syntax = data.file_meta.TransferSyntaxUID
    data.is_little_endian = syntax != ExplicitVRBigEndian
    data.is_implicit_VR = syntax == ImplicitVRLittleEndian
    data.save_as(path, write_like_original=False)
