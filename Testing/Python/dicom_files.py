"""Small DICOM series made by hand, as a scanner would write them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from HSAMSegmentLib.io.dicom.writing import write_dicom

_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage}


def write_slice(path: Path, pixels: np.ndarray, position, direction, *, modality="CT", uid="1.2.3", **tags) -> Path:
    """Write one slice.

    Args:
        path: file.
        pixels: int16 [rows, columns].
        position: LPS mm of the first pixel.
        direction: 3 x 3 matrix, columns are the directions of i, j and k.
        modality: "CT" or "MR".
        uid: series instance UID.
        tags: further elements by their DICOM keyword; None leaves one out.
    """
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = _CLASSES.get(modality, MRImageStorage)
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Modality, data.SeriesInstanceUID, data.StudyInstanceUID = modality, uid, "1.2"
    data.PatientName, data.PatientID = "Phantom", "0"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.PixelSpacing, data.SliceThickness = [1.1, 0.7], 5.3
    data.ImagePositionPatient = [round(float(value), 6) for value in position]
    data.ImageOrientationPatient = [round(float(value), 10) for value in np.asarray(direction)[:, :2].T.ravel()]
    data.PixelData = pixels.astype("<i2").tobytes()
    for keyword, value in tags.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    write_dicom(data, path)
    return path


def write_series(folder: Path, array: np.ndarray, geometry, *, name="slice", **tags) -> list[Path]:
    """Write the slices [k, j, i] of a volume, in an order that says nothing about their place."""
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(0).permutation(len(array))
    paths = []
    for number, k in enumerate(order):
        position = geometry.ijk_to_lps @ [0, 0, k, 1]
        path = folder / f"{name}{number:03d}.dcm"
        paths.append(
            write_slice(path, array[k], position[:3], geometry.direction_matrix, InstanceNumber=number, **tags)
        )
    return [paths[index] for index in np.argsort(order)]


def write_frames(path: Path, array: np.ndarray, positions, direction, *, implicit=False, slopes=None) -> Path:
    """Write the slices [k, j, i] as one enhanced file, frame k at LPS mm positions[k]."""
    write_slice(path, array[0], positions[0], direction)
    data = pydicom.dcmread(path)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    orientation = _item(ImageOrientationPatient=data.ImageOrientationPatient)
    measures = _item(PixelSpacing=data.PixelSpacing, SliceThickness=data.SliceThickness)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(data, keyword)
    data.NumberOfFrames, data.PixelData = len(array), array.astype("<i2").tobytes()
    data.SharedFunctionalGroupsSequence = [
        _item(PlaneOrientationSequence=[orientation], PixelMeasuresSequence=[measures])
    ]
    data.PerFrameFunctionalGroupsSequence = [
        _item(PlanePositionSequence=[_item(ImagePositionPatient=[round(float(value), 6) for value in position])])
        for position in positions
    ]
    for frame, slope in zip(data.PerFrameFunctionalGroupsSequence, slopes or ()):
        frame.PixelValueTransformationSequence = [_item(RescaleSlope=slope, RescaleIntercept=0.0)]
    if implicit:
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        data = _reencoded(data)
    write_dicom(data, path)
    return path


def _item(**elements) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def _reencoded(data: Dataset) -> Dataset:
    """The same elements without the encoding that they were read with."""
    copy = Dataset(dict(data.items()))
    copy.file_meta = data.file_meta
    return copy


def change(path: Path, **tags) -> None:
    """Set elements of a file."""
    data = pydicom.dcmread(path)
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    data.save_as(path)


def reencode(path: Path, syntax) -> None:
    """Write a file again in another transfer syntax, without preamble and meta information if that is None."""
    data = pydicom.dcmread(path)
    if syntax == RLELossless:
        data.compress(RLELossless)
        data.save_as(path)
        return
    if syntax == ExplicitVRBigEndian:
        data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    copy = _reencoded(data)
    if syntax is None:
        del copy.file_meta
        buffer = DicomBytesIO()
        buffer.is_little_endian = buffer.is_implicit_VR = True
        write_dataset(buffer, copy)
        path.write_bytes(buffer.getvalue())
        return
    copy.file_meta.TransferSyntaxUID = syntax
    write_dicom(copy, path)


def compress(path: Path) -> None:
    """Compress the pixels of a file as JPEG 2000, by ITK's encoder."""
    data = pydicom.dcmread(path)
    image = sitk.GetImageFromArray(data.pixel_array.reshape(1, data.Rows, data.Columns))
    with TemporaryDirectory() as folder:
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetUseCompression(True)
        writer.SetFileName(f"{folder}/compressed.dcm")
        writer.Execute(image)
        encoded = pydicom.dcmread(f"{folder}/compressed.dcm")
    data.file_meta.TransferSyntaxUID = encoded.file_meta.TransferSyntaxUID
    data.PixelData = encoded.PixelData
    data["PixelData"].is_undefined_length = True
    data.save_as(path)
