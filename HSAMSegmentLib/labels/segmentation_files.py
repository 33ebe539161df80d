"""Read and write segmentations: .seg.nrrd, DICOM Segmentations, RT Structure Sets, and plain label maps.

Label maps in formats that cannot store names (NIfTI, MetaImage) get a small ".labels.json" sidecar, which is read back
with them. Other DICOM objects are rejected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from HSAMSegmentLib.errors import OutputError, VolumeError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.sitk_images import geometry_of, image_of, quiet_itk
from HSAMSegmentLib.io.dicom.series import list_series, read_folder
from HSAMSegmentLib.io.dicom.sniff import is_dicom_file
from HSAMSegmentLib.io.image_files import (
    ROUNDING_SHEAR_DEGREES,
    check_readable_file,
    check_scalar,
    name_without_suffix,
    read_image,
)
from HSAMSegmentLib.io.nifti_files import axes_shear_degrees, check_nifti_length, read_nifti_header
from HSAMSegmentLib.io.quiet_libraries import quiet_libraries
from HSAMSegmentLib.labels.dicom_seg import SEG_CLASSES, read_dicom_seg
from HSAMSegmentLib.labels.label_maps import labels_of_values, names_path, names_text, read_names
from HSAMSegmentLib.labels.label_set import LabelSet, is_generic_name
from HSAMSegmentLib.labels.rtstruct import RTSTRUCT_CLASS, read_rtstruct
from HSAMSegmentLib.labels.seg_nrrd import header_fields, merge_layers, segment_entries
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.terminology import label_for, unique_name
from HSAMSegmentLib.runtime.atomic_files import check_output, complete_file

if TYPE_CHECKING:
    from pydicom import Dataset


SEGMENTATION_OUTPUT_SUFFIXES = (".seg.nrrd", ".nrrd", ".nii.gz", ".nii", ".mha")

_COMPRESSION_LEVEL = 4


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
        grid: grid of the scan, for a structure set; None to look for the scan beside the file.

    Raises:
        VolumeError: if the file is another kind of DICOM object or damaged, or if its scan is needed and missing.
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
        except Exception as error:  # pydicom's parsers and decoders may raise anything
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
    """The grid of the series that a structure set references, from the files in its folder."""
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


def read_segmentation(
    path: str | Path, *, names: Mapping[int, str] | None = None, grid: Geometry | None = None
) -> Segmentation:
    """Read a segmentation.

    Args:
        path: a Slicer .seg.nrrd file, a DICOM Segmentation or RT Structure Set, or a label map in any image format.
        names: names of label map values; they override names in the file. Named values that do not occur become labels,
            too.
        grid: grid of the scan, to rasterize the contours of a structure set on; without it the scan is looked for
            beside the file.

    Returns:
        The labels on the file's grid. Segments on several layers become one label map, the smaller one winning where
        two overlap; values above 255 are renumbered; both are recorded in `Segmentation.notes`.

    Raises:
        VolumeError: if the file does not exist or is not a segmentation.
    """
    path = Path(path)
    if path.is_dir():
        raise VolumeError(f'"{path}" is a folder; choose the file of the segmentation.')
    check_readable_file(path)
    if is_dicom_file(path):
        found = read_dicom_segmentation(path, grid)
        return replace(found, labels=renamed(found.labels, names))
    image, notes = read_image(path)
    fields = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys() if key.startswith("Segment")}
    entries = segment_entries(fields)
    array = sitk.GetArrayFromImage(image)
    if entries:
        array, labels, merge_notes = merge_layers(array, entries, path.name)
        labels = renamed(labels, names)
    else:
        check_scalar(path, image)
        array, labels, merge_notes = labels_of_values(array, path.name, names=names, known=read_names(path))
    return Segmentation(array, geometry_of(image), labels, name_without_suffix(path), notes + merge_notes)


def read_two_segmentations(
    first: str | Path, second: str | Path, *, names: Mapping[int, str] | None = None
) -> tuple[Segmentation, Segmentation]:
    """Read two segmentations of one scan; contours are rasterized on the other one's grid.

    Args:
        first, second: the files.
        names: names of label map values, for files without names of their own.

    Raises:
        VolumeError: if a file cannot be read.
    """
    if is_structure_set(Path(first)) and not is_structure_set(Path(second)):
        other = with_names(Path(second), names, None)
        return with_names(Path(first), names, other.geometry), other
    one = with_names(Path(first), names, None)
    return one, with_names(Path(second), names, one.geometry)


def with_names(path: Path, names: Mapping[int, str] | None, grid: Geometry | None) -> Segmentation:
    """Name the labels of a segmentation; the user's names apply to files without names of their own."""
    found = read_segmentation(path, grid=grid)
    if names and all(is_generic_name(label.name) for label in found.labels):
        return read_segmentation(path, names=names, grid=grid)
    return found


def write_segmentation(segmentation: Segmentation, path: str | Path, *, overwrite: bool = False) -> tuple[Path, ...]:
    """Write a segmentation atomically.

    Args:
        segmentation: the segmentation.
        path: .seg.nrrd (or .nrrd) keeps names, colors and codes in the file; .nii.gz, .nii and .mha get a
            ".labels.json" sidecar.
        overwrite: replace existing files.

    Returns:
        The written files, the one with the voxels first.

    Raises:
        OutputError: if the suffix is unknown, if the format cannot store the grid, or if a file exists or cannot be
            written.
    """
    path = Path(path)
    suffix = output_suffix(path)
    require_geometry_fits(path, segmentation.geometry)
    check_output(path, overwrite=overwrite)
    image = image_of(segmentation.array.astype(np.uint8, copy=False), segmentation.geometry)
    if suffix.endswith(".nrrd"):
        for key, text in header_fields(segmentation.labels, segmentation.array).items():
            image.SetMetaData(key, text)
        _write_image(image, path, suffix, overwrite)
        return (path,)
    beside = names_path(path)
    check_output(beside, overwrite=overwrite)
    _write_image(image, path, suffix, overwrite)
    with complete_file(beside, overwrite=overwrite) as temporary:
        temporary.write_text(names_text(segmentation.labels), encoding="utf-8")
    return (path, beside)


def output_suffix(path: Path) -> str:
    """The suffix that determines the format of a segmentation.

    Raises:
        OutputError: if there is no such format.
    """
    for suffix in SEGMENTATION_OUTPUT_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return suffix
    raise OutputError(
        f'A segmentation cannot be written as "{path.name}"; end the name with one of '
        f"{', '.join(SEGMENTATION_OUTPUT_SUFFIXES)}."
    )


def require_geometry_fits(path: Path, geometry: Geometry) -> None:
    """Ensure that the file format can store a grid; NIfTI would lose the shear of a tilted gantry.

    Raises:
        OutputError: if it cannot.
    """
    shear = axes_shear_degrees(geometry.direction_matrix)
    if ".nii" in output_suffix(path) and shear > ROUNDING_SHEAR_DEGREES:
        raise OutputError(
            f'"{path.name}" cannot hold this scan\'s grid: its slices are sheared by {shear:.1f} degrees (a tilted '
            "gantry), which NIfTI files lose; write .seg.nrrd instead."
        )


def _write_image(image: sitk.Image, path: Path, suffix: str, overwrite: bool) -> None:
    with complete_file(path, overwrite=overwrite, suffix=suffix) as temporary, quiet_itk():
        try:
            sitk.WriteImage(image, str(temporary), suffix != ".nii", _COMPRESSION_LEVEL)
        except RuntimeError as error:
            raise OSError("the file could not be written completely") from error
        if ".nii" in suffix:
            _check_written_nifti(temporary)


def _check_written_nifti(path: Path) -> None:
    """Check the file length, since ITK does not report a full disk when writing NIfTI."""
    try:
        header = read_nifti_header(path)
        if header is None:
            raise OSError("the file has no header")
        check_nifti_length(path, header)
    except VolumeError as error:
        raise OSError(str(error)) from error


def renamed(labels: LabelSet, names: Mapping[int, str] | None) -> LabelSet:
    """Labels with the given names for their values."""
    if not names:
        return labels
    renamed = []
    for label in labels:
        if label.value not in names:
            renamed.append(label)
            continue
        taken = [other.name for other in renamed]
        renamed.append(label_for(label.value, unique_name(names[label.value], taken, label.value)))
    return LabelSet(tuple(renamed))
