"""Read the source DICOM images of a segmentation, for the attributes that derived objects must copy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import NAMESPACE_OID, uuid5

from HSAMSegmentLib.errors import OutputError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.io.quiet_libraries import quiet_libraries

if TYPE_CHECKING:
    from pydicom import Dataset


_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
# Attributes required in every object of the study, possibly empty (type 2 in PS3.3, C.7.1 and C.7.2).
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip


def read_source_images(path: Path, files: tuple[Path, ...], geometry: Geometry) -> list[Dataset]:
    """Read the headers of the source images in slice order.

    Missing attributes that DICOM allows to be empty are added empty. A missing frame of reference gets a UID derived
    from the series, so that all results of the series share it.

    Args:
        path: the file that will reference them, for messages.
        files: as in `Origin.dicom_files`.
        geometry: grid of the segmentation, equal to that of the scan.

    Raises:
        OutputError: if the scan is not a DICOM series, or its files lack attributes that a reference needs.
    """
    if not files:
        raise OutputError(
            f'"{path.name}" would be a DICOM object that refers to the images of its scan, and the scan is not a DICOM '
            "series; segment the DICOM files, or write .seg.nrrd instead."
        )
    images = [_read(file) for file in files]
    count = sum(int(image.get("NumberOfFrames", 1) or 1) for image in images)
    sizes = {(int(image.Columns), int(image.Rows)) for image in images}
    if count != geometry.size[2] or sizes != {geometry.size[:2]}:
        raise OutputError(
            f'"{path.name}" cannot refer to {files[0].parent}: its {count} images are not on the grid of the labels; '
            "segment the DICOM files as they are now."
        )
    for file, image in zip(files, images):
        _complete(path, file, image)
    return images


def derived_uid(*parts: str) -> str:
    """Derive a UID that is the same for the same texts (PS3.5, B.2)."""
    return f"2.25.{uuid5(NAMESPACE_OID, chr(10).join(parts)).int}"


def _read(file: Path) -> Dataset:
    import pydicom

    with quiet_libraries():
        try:
            return pydicom.dcmread(file, stop_before_pixels=True, force=True)
        except Exception as error:  # pydicom's parsers may raise anything
            raise OutputError(f"{file} can no longer be read ({error}), so no DICOM object can refer to it.") from error


def _complete(path: Path, file: Path, image: Dataset) -> None:
    missing = [name for name in _IDENTITY if not image.get(name)]
    if missing:
        raise OutputError(
            f'"{path.name}" cannot refer to "{file.name}", which has no {missing[0]}; export the series again, or '
            "write .seg.nrrd instead."
        )
    for name in _MAY_BE_EMPTY:
        if name not in image:
            setattr(image, name, "")
    if not image.get("FrameOfReferenceUID"):
        image.FrameOfReferenceUID = derived_uid("frame of reference", str(image.SeriesInstanceUID))


@dataclass(frozen=True)
class Origin:
    """Scan and model of a segmentation.

    Attributes:
        dicom_files: DICOM files of the scan in slice order (k); one file may hold all slices. None for a scan in
            another format.
        model_id: ID of the model; "" for labels without a model.
        model_title: title of the model.
    """

    dicom_files: tuple[Path, ...] = ()
    model_id: str = ""
    model_title: str = ""
