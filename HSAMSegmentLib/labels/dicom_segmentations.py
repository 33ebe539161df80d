"""DICOM files that hold segmentations: Segmentation objects and RT Structure Sets. Other DICOM objects are refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.io.dicom.series import list_series, read_folder
from HSAMSegmentLib.io.dicom.sniff import is_dicom_file
from HSAMSegmentLib.io.quiet import quiet_libraries
from HSAMSegmentLib.labels.dicom_seg import SEG_CLASSES, read_dicom_seg
from HSAMSegmentLib.labels.rtstruct import RTSTRUCT_CLASS, read_rtstruct
from HSAMSegmentLib.labels.segmentation import Segmentation

if TYPE_CHECKING:
    from pydicom import Dataset


def is_structure_set(path: Path) -> bool:
    """Whether a file holds contours, which need the grid of a scan to become voxels."""
    if not path.is_file() or not is_dicom_file(path):
        return False
    import pydicom

    with quiet_libraries():
        try:
            content = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=["SOPClassUID"])
        except Exception:  # noqa: BLE001 - what is wrong with the file is said when it is read
            return False
    return str(content.get("SOPClassUID", "")) == RTSTRUCT_CLASS


def read_dicom_segmentation(path: Path, grid: Geometry | None) -> Segmentation:
    """Read a DICOM Segmentation or an RT Structure Set.

    Args:
        path: the file.
        grid: of the scan, for a structure set; looked for beside the file if None.

    Raises:
        VolumeError: if the file is another kind of DICOM object, damaged, or if its scan is needed and missing.
    """
    import pydicom

    with quiet_libraries():
        try:
            content = pydicom.dcmread(path, force=True)
            kind = str(content.get("SOPClassUID", ""))
            if kind in SEG_CLASSES:
                return read_dicom_seg(path, content)
        except VolumeError:
            raise
        except Exception as error:  # pydicom raises whatever its parsers and decoders do
            raise VolumeError(
                f'The DICOM file "{path.name}" is damaged, or compressed in a way that is not supported ({error}).'
            ) from error
    if kind == RTSTRUCT_CLASS:
        return read_rtstruct(path, content, grid or _grid_beside(path, content))
    modality = str(content.get("Modality", "") or "unknown")
    raise VolumeError(
        f'"{path.name}" is a DICOM object of the kind {modality}, not a segmentation; choose a DICOM Segmentation, an '
        "RT Structure Set, or a label map."
    )


def _grid_beside(path: Path, content: Dataset) -> Geometry:
    """The grid of the series that a structure set refers to, from the files of its folder."""
    uids = {
        str(series.SeriesInstanceUID)
        for frame in content.get("ReferencedFrameOfReferenceSequence", [])
        for study in frame.get("RTReferencedStudySequence", [])
        for series in study.get("RTReferencedSeriesSequence", [])
    }
    try:
        found = [series.id for series in list_series(path.parent) if series.id in uids]
    except VolumeError:
        found = []
    if not found:
        raise VolumeError(
            f'"{path.name}" holds contours, and its scan is not beside it; put the file into the folder of the scan.'
        )
    return read_folder(path.parent, found[0]).geometry
