"""Write DICOM Segmentation objects with highdicom: one binary segment per structure, on the frames of the scan."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from HSAMSegmentLib.errors import OutputError, RequestError
from HSAMSegmentLib.export.source_images import Origin, derived_uid, read_source_images
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.io.dicom.writing import write_dicom
from HSAMSegmentLib.io.quiet_libraries import quiet_libraries
from HSAMSegmentLib.labels.dicom_seg import cielab_of
from HSAMSegmentLib.labels.label_set import Code, Label
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.structures import TISSUE
from HSAMSegmentLib.labels.terminology import unique_name
from HSAMSegmentLib.runtime.atomic_files import complete_file

if TYPE_CHECKING:
    from pydicom import Dataset

PROGRAM = "HSAMSegment"
HIGHDICOM_HINT = "A DICOM Segmentation needs highdicom; install it with: pip install 'hsamsegment[dicom]'"
LONGEST_NAME = 64
_SERIES_NUMBER = 9001


def write_dicom_seg(segmentation: Segmentation, path: Path, origin: Origin, *, overwrite: bool = False) -> None:
    """Write the structures that were found as a DICOM Segmentation; if there are none, write all as empty segments.

    Each segment has the name, code, side and color of its label, the model as its algorithm, and a tracking UID that is
    the same for this structure in every result of the series. Frames reference their source images.

    Args:
        segmentation: labels on the grid of the scan.
        path: the file; written atomically.
        origin: the scan and the model.
        overwrite: replace an existing file.

    Raises:
        RequestError: if highdicom is not installed.
        OutputError: if the scan is not a DICOM series, or the file exists or cannot be written.
    """
    require_highdicom()
    images = read_source_images(path, origin.dicom_files, segmentation.geometry)
    labels, array = _numbered(segmentation)
    described = [
        _description(number, label, name, origin, str(images[0].SeriesInstanceUID))
        for number, (label, name) in enumerate(zip(labels, stored_names(labels)), start=1)
    ]
    with quiet_libraries():
        made = _object(segmentation.geometry, path, images, array, described, origin)
    made.SpecificCharacterSet = "ISO_IR 192"
    made.ContentCreatorName = ""  # type 2; highdicom omits it and dcmqi warns about that
    with complete_file(path, overwrite=overwrite) as temporary:
        write_dicom(made, temporary)


def _object(
    geometry: Geometry, path: Path, images: list[Dataset], array: np.ndarray, described: Sequence[Any], origin: Origin
) -> Dataset:
    import highdicom

    try:
        measures = _pixel_measures(geometry)
        for image in images:
            if not getattr(image, "SliceThickness", None):  # may be empty; highdicom needs one
                image.SliceThickness = measures[0].SliceThickness
        made = highdicom.seg.Segmentation(
            source_images=images,
            pixel_array=array,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=described,
            series_instance_uid=highdicom.UID(),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer=PROGRAM,
            manufacturer_model_name=origin.model_id or PROGRAM,
            software_versions=software_version(),
            device_serial_number="none",
            content_label="ORGANS",
            content_description=f"{origin.model_title or 'Organs'}; for research only"[:LONGEST_NAME],
            series_description=f"{PROGRAM} {origin.model_id}".strip()[:LONGEST_NAME],
            omit_empty_frames=bool(array.any()),
        )
        # Given to the constructor, highdicom for Python 3.9 would not say which image a frame is derived from.
        made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = measures
        return made
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise OutputError(
            f'"{path.name}" cannot be written as a DICOM Segmentation, since the headers of its scan are incomplete '
            f"({error}); write .seg.nrrd instead."
        ) from error


def require_highdicom() -> None:
    """Raise a RequestError with installation instructions if highdicom is missing."""
    if find_spec("highdicom") is None:
        raise RequestError(HIGHDICOM_HINT)


def software_version() -> str:
    """Version of this program."""
    from HSAMSegmentLib import __version__

    return __version__


def stored_names(labels: Sequence[Label]) -> list[str]:
    """Names in DICOM's limits: at most 64 characters, no backslash, unique."""
    names: list[str] = []
    for label in labels:
        short = label.name.replace("\\", "/").strip()
        short = short if len(short) <= LONGEST_NAME else short[: LONGEST_NAME - 6].strip()
        names.append(unique_name(short, names, label.value))
    return names


def _numbered(segmentation: Segmentation) -> tuple[list[Label], np.ndarray]:
    """The labels that become segments, and the array with values replaced by segment numbers 1, 2, ...."""
    present = set(np.unique(segmentation.array).tolist())
    labels = [label for label in segmentation.labels if label.value in present] or list(segmentation.labels)
    table = np.zeros(256, dtype=np.uint8)
    for number, label in enumerate(labels, start=1):
        table[label.value] = number
    return labels, table[segmentation.array]


def _description(number: int, label: Label, name: str, origin: Origin, series_uid: str) -> Dataset:
    import highdicom
    from pydicom.sr.codedict import codes

    terms = label.terminology
    made = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=_concept(terms.category if terms else TISSUE),
        segmented_property_type=_concept(terms.type if terms else TISSUE),
        algorithm_type=algorithm_type(origin),
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=algorithm_name(origin), family=codes.cid7162.ArtificialIntelligence, version=software_version()
        ),
        tracking_uid=derived_uid("tracking", series_uid, name),
        tracking_id=name,
    )
    # Versions of highdicom for Python 3.9 have no argument for it.
    made.RecommendedDisplayCIELabValue = list(highdicom.color.CIELabColor(*cielab_of(label.color)).value)
    if terms is not None and terms.modifier is not None:
        item = made.SegmentedPropertyTypeCodeSequence[0]
        item.SegmentedPropertyTypeModifierCodeSequence = [_concept(terms.modifier)]
    return made


def algorithm_type(origin: Origin) -> str:
    """ "AUTOMATIC" for the result of a model; labels from a file may have been drawn or corrected manually."""
    return "AUTOMATIC" if origin.model_id else "SEMIAUTOMATIC"


def algorithm_name(origin: Origin) -> str:
    """Algorithm name for DICOM objects: the program and the model."""
    return f"{PROGRAM} {origin.model_id}".strip()[:LONGEST_NAME]


def _concept(code: Code) -> Any:
    import highdicom

    meaning = (code.meaning or code.value)[:LONGEST_NAME]
    return highdicom.sr.CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=meaning)


def _pixel_measures(geometry: Geometry) -> Any:
    """Voxel sizes; slice spacing is measured along the normal, even with a tilted gantry."""
    import highdicom

    axes = geometry.direction_matrix
    normal = np.cross(axes[:, 0], axes[:, 1])
    distance = geometry.spacing_mm[2] * abs(float(normal @ axes[:, 2])) / float(np.linalg.norm(normal))
    column, row = geometry.spacing_mm[:2]
    return highdicom.PixelMeasuresSequence((row, column), slice_thickness=distance, spacing_between_slices=distance)
