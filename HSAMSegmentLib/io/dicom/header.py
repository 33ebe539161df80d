"""Parse the header of a DICOM file: whether it is a scan, its series, its position, and its pixel storage.

It is read once, by pydicom, up to the pixels, whose offset is kept so that uncompressed ones need no second parsing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from HSAMSegmentLib.io.dicom.placement import (
    FramePlace,
    frame_places,
    items,
    number,
    numbers,
    place_of,
    text,
    usable_orientation,
)
from HSAMSegmentLib.io.dicom.sniff import FIRST_BYTES, begins_like_dicom
from HSAMSegmentLib.io.quiet_libraries import quiet_libraries
from HSAMSegmentLib.runtime.serialization import triple

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"

# Objects that describe a scan but are none: segmentations, presentation states, radiotherapy objects, reports, key
# objects, registrations, fiducials, real-world values, documents, plans.
_NO_SCAN_MODALITIES = {
    "SEG", "PR", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "SR", "KO", "REG", "FID", "RWV", "DOC", "PLAN", "M3D",
    "STAIN", "ANN", "AU", "ECG", "HD", "EPS", "SMR",
}  # fmt: skip

# The same by SOP class, for files with another modality (a SEG often has that of its scan). A number that ends with a
# point stands for all classes below it.
_CLASS = "1.2.840.10008.5.1.4.1.1."
_NO_SCAN_CLASSES = {
    "SEG": (f"{_CLASS}66.4", f"{_CLASS}66.5", f"{_CLASS}66.7", f"{_CLASS}66.8"),
    "REG": (f"{_CLASS}66.1", f"{_CLASS}66.3"),
    "FID": (f"{_CLASS}66.2", f"{_CLASS}66.6"),
    "raw data": (f"{_CLASS}66",),
    "RWV": (f"{_CLASS}67",),
    "RTDOSE": (f"{_CLASS}481.2",),
    "RTSTRUCT": (f"{_CLASS}481.3",),
    "RTPLAN": (f"{_CLASS}481.5", f"{_CLASS}481.8"),
    "RTRECORD": (
        f"{_CLASS}481.4",
        f"{_CLASS}481.6",
        f"{_CLASS}481.7",
        f"{_CLASS}481.9",
    ),
    "PR": (f"{_CLASS}11.",),
    "KO": (f"{_CLASS}88.59",),
    "SR": (f"{_CLASS}88.",),
    "DOC": (f"{_CLASS}104.",),
    "wave form": (f"{_CLASS}9.",),
    "spectroscopy": (f"{_CLASS}4.2",),
    "ANN": (f"{_CLASS}91.",),
    "hanging protocol": ("1.2.840.10008.5.1.4.38.",),
    "index of a disc": (MEDIA_DIRECTORY,),
}

_PIXEL_GROUP, _PIXEL_DATA = 0x7FE0, 0x0010
_UNDEFINED_LENGTH = 0xFFFFFFFF

# Elements that distinguish images at the same position, and their names in a list of volumes.
SPLITTING = {
    "EchoNumbers": "echo",
    "TemporalPositionIdentifier": "time point",
    "DiffusionBValue": "b-value",
    "EchoTime": "echo time",
    "TriggerTime": "trigger time",
    "NominalPercentageOfCardiacPhase": "cardiac phase",
    "InversionTime": "inversion time",
    "FlipAngle": "flip angle",
    "AcquisitionNumber": "acquisition",
    "ImageType": "image type",
    "SequenceName": "sequence",
    "ConvolutionKernel": "kernel",
    "ContrastBolusAgent": "contrast",
    "StackID": "stack",
    "AcquisitionDateTime": "acquired",
    "AcquisitionTime": "acquired",
    "SeriesTime": "series time",
}

_PLACEMENT = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing",
    "NominalScannedPixelSpacing", "EstimatedRadiographicMagnificationFactor", "SpacingBetweenSlices", "SliceThickness",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
_STORAGE = (
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
)  # fmt: skip
_IDENTITY = (
    "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID",
    "PatientName", "SeriesNumber", "SeriesDescription", "StudyDate", "Modality", "FrameOfReferenceUID",
    "InstanceNumber",
)  # fmt: skip
_MOST_BITS = 64
_MOSAIC_CREATOR, _MOSAIC_COUNT = (0x0019, 0x0010), (0x0019, 0x100A)


def is_scan_class(object_class: str, modality: str) -> bool:
    """Whether objects of this SOP class and modality are images of a patient."""
    return modality not in _NO_SCAN_MODALITIES and not _kind_by_class(object_class)


def kind_name(object_class: str, modality: str) -> str:
    """Name of such an object: its kind by SOP class, else its modality."""
    return _kind_by_class(object_class) or modality or "unknown"


def _kind_by_class(object_class: str) -> str:
    for kind, classes in _NO_SCAN_CLASSES.items():
        if any(object_class == name or (name.endswith(".") and object_class.startswith(name)) for name in classes):
            return kind
    return ""


@dataclass(frozen=True)
class PixelPlace:
    """Position of the pixels in a file.

    Attributes:
        offset: first byte, 0 unless the pixels are plain little-endian integers.
        length: length in bytes, 0 likewise.
    """

    offset: int = 0
    length: int = 0


def find_pixels(file: BinaryIO, data: Dataset) -> PixelPlace | None:
    """Find the pixels in a file that was read up to them; None if there are none."""
    syntax = getattr(getattr(data, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is not None and (syntax.is_private or not syntax.is_transfer_syntax):
        syntax = None  # pydicom raises for the properties of one that it does not know
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
    # Some files use another encoding than declared; the type in the element itself reveals it (as a length it is odd).
    has_type = head[4:6] in (b"OW", b"OB")
    if not has_type and not syntax.is_implicit_VR:
        return PixelPlace()
    start = 12 if has_type else 8
    length = struct.unpack("<I", head[start - 4 : start])[0]
    return PixelPlace() if length == _UNDEFINED_LENGTH else PixelPlace(offset + start, length)


@dataclass(frozen=True)
class Storage:
    """Pixel storage of one file.

    Attributes:
        bits_allocated: bits that a value takes in the file.
        bits_stored: bits that belong to the value.
        high_bit: the highest of these.
        is_described: whether the file declares the bits and the sign of its values.
        is_signed: whether values are signed.
        rescale: slope and intercept from stored to real values.
        has_table: whether a table (modality LUT) defines the real values instead.
        photometric: DICOM's photometric interpretation.
        samples: values per pixel.
    """

    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_described: bool
    is_signed: bool
    rescale: tuple[float, float]
    has_table: bool
    photometric: str
    samples: int


@dataclass(frozen=True)
class DicomHeader:
    """The content of one DICOM file's header.

    Attributes:
        path: the file.
        series_uid: series instance UID, empty if the file has none.
        series_key: shared by all files of one series (patient, study, and more without a UID).
        series_number: as text, may be empty.
        description: series description, may be empty.
        study_date: as in DICOM (YYYYMMDD), may be empty.
        modality: DICOM's modality ("CT", "MR", "SEG", ...).
        instance: shared only by copies of the same image.
        size: columns, rows; (0, 0) without an image.
        frames: images in this file.
        position: LPS mm of the first pixel, or None.
        orientation: six numbers, directions of a row and of a column, or None.
        is_skewed: whether the file's orientation is not two perpendicular directions.
        thickness_mm: distance between slices or thickness of one, 0 if unknown.
        slice_thickness_mm: slice thickness, 0 if unknown.
        pixel_spacing_mm: spacing of rows and of columns, or None.
        frame_places: placement of each frame of a multi-frame file, else empty.
        storage: pixel storage.
        object_class: SOP class UID.
        is_localizer: whether the file is a localizer image.
        is_mosaic: whether all slices of a volume are tiles of this one picture.
        pixels: position of the pixels in the file, None without an image.
        splitting: values of `SPLITTING`.
    """

    path: Path
    series_uid: str
    series_key: tuple[str, ...]
    series_number: str
    description: str
    study_date: str
    modality: str
    instance: tuple[Any, ...]
    size: tuple[int, int]
    frames: int
    position: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    is_skewed: bool
    thickness_mm: float
    slice_thickness_mm: float
    pixel_spacing_mm: tuple[float, ...] | None
    frame_places: tuple[FramePlace, ...]
    storage: Storage
    object_class: str
    is_localizer: bool
    is_mosaic: bool
    pixels: PixelPlace | None
    splitting: tuple[str, ...]

    @property
    def is_scan(self) -> bool:
        """Whether this is an image of a patient, as opposed to a segmentation, a plan, a report, ..."""
        return is_scan_class(self.object_class, self.modality)

    @property
    def has_pixels(self) -> bool:
        """Whether there is an image in the file."""
        return self.pixels is not None

    @property
    def is_media_directory(self) -> bool:
        """Whether this is the index of a disc (DICOMDIR)."""
        return self.object_class == MEDIA_DIRECTORY

    @property
    def kind(self) -> str:
        """The kind of object, for messages."""
        return kind_name(self.object_class, self.modality)

    @property
    def is_picture(self) -> bool:
        """Whether this is a color picture or one without a position, such as a dose report."""
        if self.storage.samples > 1 or self.storage.photometric == "PALETTE COLOR":
            return True
        captured = self.modality == "OT" or self.object_class.startswith(SECONDARY_CAPTURE)
        return captured and self.position is None and self.frames == 1

    @property
    def normal(self) -> np.ndarray:
        """Unit LPS vector across the slice."""
        if self.orientation is None:
            return np.array([0.0, 0.0, 1.0])
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        array: np.ndarray = normal / np.linalg.norm(normal)
        return array


def read_dicom_header(path: Path) -> DicomHeader | None:
    """Read the header of a DICOM file; None if it is not DICOM or is damaged."""
    from pydicom import dcmread

    with quiet_libraries():
        try:
            with open(path, "rb") as file:
                if not begins_like_dicom(file.read(FIRST_BYTES)):
                    return None
                file.seek(0)
                data = dcmread(file, stop_before_pixels=True, force=True, specific_tags=_wanted())
                return _header(path, data, find_pixels(file, data))
        except Exception:  # noqa: BLE001 - a damaged file makes pydicom raise nearly anything
            return None


@cache
def _wanted() -> list[Any]:
    from pydicom.tag import Tag

    names: tuple[Any, ...] = (*_IDENTITY, *_PLACEMENT, *_STORAGE, *SPLITTING, _MOSAIC_CREATOR, _MOSAIC_COUNT)
    return [Tag(name) for name in names]


def _header(path: Path, data: Dataset, pixels: PixelPlace | None) -> DicomHeader | None:
    place = place_of(data)
    frames = max(int(number(data, "NumberOfFrames", 1)), 1)
    object_class = text(data, "SOPClassUID") or str(getattr(data.file_meta, "MediaStorageSOPClassUID", ""))
    size = (int(number(data, "Columns")), int(number(data, "Rows")))
    if not object_class and not all(size):
        return None
    image_type = text(data, "ImageType").upper()
    position = None if place.position is None else triple(place.position)
    orientation = usable_orientation(place.orientation)
    return DicomHeader(
        path=path,
        series_uid=text(data, "SeriesInstanceUID"),
        series_key=_series_key(data),
        series_number=text(data, "SeriesNumber"),
        description=text(data, "SeriesDescription"),
        study_date=text(data, "StudyDate"),
        modality=text(data, "Modality").upper(),
        instance=(text(data, "SOPInstanceUID") or str(path), text(data, "InstanceNumber"), position),
        size=size,
        frames=frames,
        position=position,
        orientation=orientation,
        is_skewed=place.orientation is not None and orientation is None,
        thickness_mm=_positive(data, "SpacingBetweenSlices", "SliceThickness"),
        slice_thickness_mm=_positive(data, "SliceThickness"),
        pixel_spacing_mm=place.spacing,
        frame_places=frame_places(data, frames) if frames > 1 else (),
        storage=_storage(data, place),
        object_class=object_class,
        is_localizer="LOCALIZER" in image_type,
        is_mosaic="MOSAIC" in image_type or _counts_tiles(data),
        pixels=pixels if all(size) else None,
        splitting=tuple(text(data, keyword) for keyword in SPLITTING),
    )


def _series_key(data: Dataset) -> tuple[str, ...]:
    """Key of the file's series: its UID with more (a bad export may share a UID between patients), or the rest."""
    uid = text(data, "SeriesInstanceUID")
    if uid:
        return (uid, text(data, "PatientID"), text(data, "StudyInstanceUID"))
    others = (
        "PatientID", "PatientName", "StudyInstanceUID", "StudyDate", "SeriesNumber", "FrameOfReferenceUID",
        "SeriesDescription", "Modality",
    )  # fmt: skip
    return ("", *(text(data, keyword) for keyword in others))


def _positive(data: Dataset, *keywords: str) -> float:
    """The first positive number of these elements, at the top level or in the shared functional groups; else 0."""
    shared = [
        measures
        for group in items(data, "SharedFunctionalGroupsSequence")
        for measures in items(group, "PixelMeasuresSequence")
    ]
    for keyword in keywords:
        for source in (data, *shared):
            values = numbers(source, keyword, 1)
            if values is not None and values[0] > 0:
                return values[0]
    return 0.0


def _storage(data: Dataset, place: FramePlace) -> Storage:
    allocated = min(max(int(number(data, "BitsAllocated", 16)), 1), _MOST_BITS)
    stored = int(number(data, "BitsStored", allocated))
    stored = stored if 1 <= stored <= allocated else allocated
    high_bit = int(number(data, "HighBit", stored - 1))
    return Storage(
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high_bit if stored - 1 <= high_bit < allocated else stored - 1,
        is_described=numbers(data, "BitsAllocated", 1) is not None
        and numbers(data, "PixelRepresentation", 1) in ((0.0,), (1.0,)),
        is_signed=number(data, "PixelRepresentation") == 1,
        rescale=place.rescale,
        has_table=bool(items(data, "ModalityLUTSequence")),
        photometric=text(data, "PhotometricInterpretation").upper(),
        samples=int(number(data, "SamplesPerPixel", 1)),
    )


def _counts_tiles(data: Dataset) -> bool:
    creator = data.get_item(_MOSAIC_CREATOR) if _MOSAIC_CREATOR in data else None
    name = getattr(creator, "value", b"")
    name = name if isinstance(name, str) else bytes(name).decode("ascii", "replace")
    return name.strip("\0 ").upper() == "SIEMENS MR HEADER" and _MOSAIC_COUNT in data
