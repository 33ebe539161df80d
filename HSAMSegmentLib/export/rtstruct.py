"""Write RT Structure Sets: one contour per slice and component of a structure, on the scan's images (PS3.3, A.19).

Contours are closed and run half a pixel outside the centers of the labeled pixels.
A hole is joined to the contour around it by a zero-width channel (the keyhole of PS3.3, C.8.8.6.3), so that every
reader of closed planar contours finds the hole. Contours pass midway between pixel centers, so rasterizing them by
pixel centers restores the same pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from HSAMSegmentLib.export.dicom_seg import (
    LONGEST_NAME,
    PROGRAM,
    algorithm_name,
    algorithm_type,
    software_version,
    stored_names,
)
from HSAMSegmentLib.export.source_images import Origin, read_source_images
from HSAMSegmentLib.io.dicom.writing import write_dicom
from HSAMSegmentLib.labels.label_set import Code, Label
from HSAMSegmentLib.labels.rtstruct import RTSTRUCT_CLASS
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.runtime.atomic_files import complete_file

if TYPE_CHECKING:
    from pydicom import Dataset


_STRAIGHT = 1e-9

_STUDY_OF = "1.2.840.10008.3.1.2.3.1"
"""Referenced study class of structure sets: detached study management, which is retired but still in use."""
_DECIMALS = 4
_PATIENT = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize", "PatientWeight",
    "StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber",
    "ReferringPhysicianName",
)  # fmt: skip
_LONGEST_LABEL = 16


def contours_of(mask: np.ndarray) -> list[np.ndarray]:
    """Extract the contours of a mask.

    Args:
        mask: bool [rows, columns].

    Returns:
        One array [n, 2] of (column, row) in pixels per connected component (edge or corner contact may connect),
        without repeating the first point at the end.
    """
    from contourpy import FillType, contour_generator

    hits = np.argwhere(mask)
    if not len(hits):
        return []
    (top, left), (bottom, right) = hits.min(axis=0), hits.max(axis=0)
    padded = np.pad(mask[top : bottom + 1, left : right + 1], 1).astype(np.float64)
    generator = contour_generator(z=padded, fill_type=FillType.OuterOffset)
    parts, offsets = cast(Any, generator.filled(0.5, np.inf))
    shift = np.array([left - 1.0, top - 1.0])
    return [_with_keyholes(_rings(points, ends)) + shift for points, ends in zip(parts, offsets)]


def _rings(points: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    """The outer ring and the holes, without points that are collinear with their neighbors."""
    rings = [points[start : end - 1] for start, end in zip(ends[:-1], ends[1:])]
    return [_without_straight(ring) for ring in rings]


def _without_straight(ring: np.ndarray) -> np.ndarray:
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    array: np.ndarray = ring[np.abs(turn) > _STRAIGHT]
    return array


def _with_keyholes(rings: list[np.ndarray]) -> np.ndarray:
    """Merge into one polygon: from the outer ring to each hole, around it, and back along the same way."""
    polygon = rings[0]
    for hole in rings[1:]:
        apart = ((polygon[:, np.newaxis] - hole[np.newaxis]) ** 2).sum(axis=2)
        at, of_hole = np.unravel_index(int(apart.argmin()), apart.shape)
        around = np.roll(hole, -of_hole, axis=0)
        polygon = np.concatenate([polygon[: at + 1], around, around[:1], polygon[at:]])
    return polygon


def write_rtstruct(segmentation: Segmentation, path: Path, origin: Origin, *, overwrite: bool = False) -> None:
    """Write the structures that were found as an RT Structure Set; if there are none, write all without contours.

    Args:
        segmentation: labels on the grid of the scan.
        path: the file; written atomically.
        origin: the scan and the model.
        overwrite: replace an existing file.

    Raises:
        OutputError: if the scan is not a DICOM series, or the file exists or cannot be written.
    """
    images = read_source_images(path, origin.dicom_files, segmentation.geometry)
    content = _structure_set(images[0], origin)
    references = list(_references(images))
    frame = images[0].FrameOfReferenceUID
    content.FrameOfReferenceUID, content.PositionReferenceIndicator = frame, ""
    content.ReferencedFrameOfReferenceSequence = [_frame_of_reference(images[0], references)]
    present = set(np.unique(segmentation.array).tolist())
    labels = [label for label in segmentation.labels if label.value in present] or list(segmentation.labels)
    content.StructureSetROISequence, content.ROIContourSequence, content.RTROIObservationsSequence = [], [], []
    for number, (label, name) in enumerate(zip(labels, stored_names(labels)), start=1):
        content.StructureSetROISequence.append(
            _item(
                ROINumber=number,
                ReferencedFrameOfReferenceUID=frame,
                ROIName=name,
                ROIGenerationAlgorithm=algorithm_type(origin),
                ROIGenerationDescription=algorithm_name(origin),
            )
        )
        contours = list(_contours(segmentation, label.value, references))
        drawn = _item(ReferencedROINumber=number, ROIDisplayColor=[round(255 * part) for part in label.color])
        if contours:
            drawn.ContourSequence = contours
        content.ROIContourSequence.append(drawn)
        content.RTROIObservationsSequence.append(_observation(number, label))
    with complete_file(path, overwrite=overwrite) as temporary:
        write_dicom(content, temporary)


def _structure_set(image: Dataset, origin: Origin) -> Dataset:
    """The object, still without its structures."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

    now = datetime.now()
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = UID(RTSTRUCT_CLASS)
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid()
    made.SpecificCharacterSet = "ISO_IR 192"
    for name in _PATIENT:
        if name in image:
            setattr(made, name, image[name].value)
    made.Modality, made.SeriesInstanceUID, made.SeriesNumber, made.InstanceNumber = "RTSTRUCT", generate_uid(), 9002, 1
    made.SeriesDescription = f"{PROGRAM} {origin.model_id}".strip()[:LONGEST_NAME]
    made.OperatorsName = ""
    made.InstanceCreationDate = made.StructureSetDate = made.SeriesDate = now.strftime("%Y%m%d")
    made.InstanceCreationTime = made.StructureSetTime = made.SeriesTime = now.strftime("%H%M%S")
    made.Manufacturer, made.ManufacturerModelName = PROGRAM, origin.model_id or PROGRAM
    made.SoftwareVersions = software_version()
    made.StructureSetLabel = PROGRAM[:_LONGEST_LABEL]
    made.StructureSetDescription = f"{origin.model_title or 'Organs'}; for research only"
    made.ApprovalStatus = "UNAPPROVED"
    return made


def _references(images: Sequence[Dataset]) -> Iterator[Dataset]:
    """References to the image of each slice."""
    for image in images:
        frames = int(image.get("NumberOfFrames", 1) or 1)
        for number in range(1, frames + 1):
            uids = {"ReferencedSOPClassUID": image.SOPClassUID, "ReferencedSOPInstanceUID": image.SOPInstanceUID}
            yield _item(**uids, **({"ReferencedFrameNumber": number} if frames > 1 else {}))


def _frame_of_reference(image: Dataset, references: Sequence[Dataset]) -> Dataset:
    whole = {str(item.ReferencedSOPInstanceUID): item for item in references}
    series = _item(
        SeriesInstanceUID=image.SeriesInstanceUID,
        ContourImageSequence=[
            _item(ReferencedSOPClassUID=item.ReferencedSOPClassUID, ReferencedSOPInstanceUID=uid)
            for uid, item in whole.items()
        ],
    )
    study = _item(
        ReferencedSOPClassUID=_STUDY_OF,
        ReferencedSOPInstanceUID=image.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=image.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _contours(segmentation: Segmentation, value: int, references: Sequence[Dataset]) -> Iterator[Dataset]:
    to_lps = segmentation.geometry.ijk_to_lps
    for k in np.flatnonzero((segmentation.array == value).any(axis=(1, 2))):
        for polygon in contours_of(segmentation.array[k] == value):
            indices = np.column_stack([polygon, np.full(len(polygon), float(k)), np.ones(len(polygon))])
            points = (indices @ to_lps.T)[:, :3]
            yield _item(
                ContourImageSequence=[references[int(k)]],
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(points),
                ContourData=[f"{part:.{_DECIMALS}f}" for part in points.ravel()],
            )


def _observation(number: int, label: Label) -> Dataset:
    made = _item(ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType="ORGAN", ROIInterpreter="")
    terms = label.terminology
    if terms is not None:
        code = _code(terms.type)
        if terms.modifier is not None:
            code.SegmentedPropertyTypeModifierCodeSequence = [_code(terms.modifier)]
        made.RTROIIdentificationCodeSequence = [code]
    return made


def _code(code: Code) -> Dataset:
    meaning = (code.meaning or code.value)[:LONGEST_NAME]
    return _item(CodeValue=code.value, CodingSchemeDesignator=code.scheme, CodeMeaning=meaning)


def _item(**elements: Any) -> Dataset:
    from pydicom import Dataset

    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made
