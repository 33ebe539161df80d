"""The few DICOM tags that decide which files form a volume, read through SimpleITK's GDCM reader."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from HSAMSegmentLib.images.sitk_images import quiet_itk

# Tags that tell apart images at the same place: echo number, temporal position, acquisition number, b-value,
# echo time, trigger time, kind of image.
SPLITTING_TAGS = {
    "0018|0086": "echo",
    "0020|0100": "time point",
    "0018|9087": "b-value",
    "0018|0081": "echo time",
    "0018|1060": "trigger time",
    "0020|0012": "acquisition",
    "0008|0008": "image type",
}


# Kinds of objects that describe a scan and are none: segmentations, presentation states, radiotherapy objects, reports,
# key objects, registrations, fiducials, real-world values, documents, plans.
_NO_SCANS = {
    "SEG", "PR", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "SR", "KO", "REG", "FID", "RWV", "DOC", "PLAN", "M3D",
    "STAIN", "ANN", "AU",
}  # fmt: skip
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True)
class DicomHeader:
    """What one DICOM file says about its image.

    Attributes:
        path: the file.
        series_uid: series instance UID.
        series_number: as text, may be empty.
        description: series description, may be empty.
        modality: DICOM's modality ("CT", "MR", "SEG", ...).
        instance_uid: SOP instance UID.
        size: columns, rows.
        frames: images in this file.
        position: LPS mm of the first pixel, or None.
        orientation: six numbers, direction of a row and of a column, or None.
        thickness_mm: distance of slices or thickness of one, 0 if unknown.
        pixel_spacing_mm: distance of rows and of columns, or None.
        rescale: slope and intercept from stored to real values, as text.
        object_class: SOP class UID.
        is_localizer: whether the file is a scout image.
        splitting: values of `SPLITTING_TAGS`.
    """

    path: Path
    series_uid: str
    series_number: str
    description: str
    modality: str
    instance_uid: str
    size: tuple[int, int]
    frames: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    thickness_mm: float
    pixel_spacing_mm: tuple[float, ...] | None
    rescale: tuple[str, str]
    object_class: str
    is_localizer: bool
    splitting: tuple[str, ...]

    @property
    def is_scan(self) -> bool:
        """Whether this is an image of a patient, not a segmentation, a plan, a report, ... of one."""
        return self.modality not in _NO_SCANS

    @property
    def is_screenshot(self) -> bool:
        """Whether this is a picture without a place, such as a dose report."""
        captured = self.modality == "OT" or self.object_class.startswith(_SECONDARY_CAPTURE)
        return captured and self.position is None and self.frames == 1

    @property
    def normal(self) -> np.ndarray:
        """Unit LPS vector across the slice."""
        if self.orientation is None:
            return np.array([0.0, 0.0, 1.0])
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return normal / np.linalg.norm(normal)

    @property
    def depth_mm(self) -> float:
        """Position of the slice along its normal, 0 if the file does not say."""
        return 0.0 if self.position is None else float(np.dot(self.position, self.normal))


def is_dicom_file(path: Path) -> bool:
    """Whether a file has DICOM's mark after its preamble, or is named as DICOM files are."""
    if path.suffix.lower() in (".dcm", ".ima", ".dicom"):
        return True
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def gdcm_reader(path: Path) -> sitk.ImageFileReader:
    """A reader that takes the file for DICOM, whatever its name."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader


def read_dicom_header(path: Path) -> DicomHeader | None:
    """Read the header of a DICOM image; None if the file holds no image that can be read."""
    reader = gdcm_reader(path)
    with quiet_itk():
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            return None
    tags = {key: reader.GetMetaData(key).strip().strip("\0") for key in reader.GetMetaDataKeys()}
    size = reader.GetSize()
    image_type = tags.get("0008|0008", "").upper()
    return DicomHeader(
        path=path,
        series_uid=tags.get("0020|000e", ""),
        series_number=tags.get("0020|0011", ""),
        description=tags.get("0008|103e", ""),
        modality=tags.get("0008|0060", "").upper(),
        instance_uid=tags.get("0008|0018", "") or str(path),
        size=(size[0], size[1]),
        frames=size[2] if len(size) > 2 else 1,
        position=numbers_of(tags.get("0020|0032", ""), 3),
        orientation=numbers_of(tags.get("0020|0037", ""), 6),
        thickness_mm=_thickness(tags),
        pixel_spacing_mm=numbers_of(tags.get("0028|0030", ""), 2),
        rescale=(tags.get("0028|1053", ""), tags.get("0028|1052", "")),
        object_class=tags.get("0008|0016", ""),
        is_localizer="LOCALIZER" in image_type,
        splitting=tuple(tags.get(tag, "") for tag in SPLITTING_TAGS),
    )


def _thickness(tags: dict[str, str]) -> float:
    for tag in ("0018|0088", "0018|0050"):
        values = numbers_of(tags.get(tag, ""), 1)
        if values is not None and values[0] > 0:
            return values[0]
    return 0.0


def numbers_of(text: str, count: int) -> tuple[float, ...] | None:
    """The numbers of a multi-valued tag, or None if there are not exactly so many finite ones."""
    try:
        values = tuple(float(part) for part in text.split("\\"))
    except ValueError:
        return None
    return values if len(values) == count and all(np.isfinite(values)) else None
