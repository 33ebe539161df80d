"""Volumes from files: NIfTI, NRRD, MetaImage and other images, DICOM files and folders.

Values that are not finite are replaced the same way each time and told in `Volume.notes`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.images.sitk_images import geometry_of
from HSAMSegmentLib.images.volume import Volume, guess_modality
from HSAMSegmentLib.io.dicom import series as dicom
from HSAMSegmentLib.io.dicom.series import Series, list_series
from HSAMSegmentLib.io.image_files import (
    SEGMENTATION_SUFFIXES,
    check_readable_file,
    check_scalar,
    name_without_suffix,
    read_image,
)

__all__ = ["Series", "finite_array", "list_series", "read_volume"]


def read_volume(path: str | Path, *, series: str | None = None) -> Volume:
    """Read a scan.

    Args:
        path: a file (NIfTI, NRRD, MetaImage, a DICOM file) or a folder with DICOM files.
        series: instance UID (or its end), number or description of the series, where a folder holds several.

    Returns:
        The volume on the grid of the file; images of two dimensions become one slice.

    Raises:
        VolumeError: if there is no such file, if it is not a scalar volume, or if it is damaged.
    """
    path = Path(path)
    if path.is_dir():
        return _of_dicom(dicom.read_folder(path, series), path)
    check_readable_file(path)
    if path.name.lower().endswith(SEGMENTATION_SUFFIXES):
        raise VolumeError(f'"{path.name}" is a segmentation, not a scan; choose the volume that it was drawn on.')
    if dicom.is_dicom_file(path):
        return _of_dicom(dicom.read_file(path, series), path)
    image, notes = read_image(path)
    return _volume(image, name_without_suffix(path), "", notes, path)


def finite_array(array: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """The array with finite values only, and a note if some were not.

    What is not a number, and minus infinity, becomes the lowest finite value (background in any scan), infinity the
    highest.

    Raises:
        VolumeError: if no value is finite.
    """
    if array.dtype.kind != "f":
        return array, ()
    finite = np.isfinite(array)
    count = int(array.size - np.count_nonzero(finite))
    if count == 0:
        return array, ()
    if count == array.size:
        raise VolumeError("No voxel of the volume holds a finite number; there is nothing to segment.")
    low, high = float(array[finite].min()), float(array[finite].max())
    mended = np.nan_to_num(array, nan=low, posinf=high, neginf=low)
    return mended, (f"{count} voxels held no finite number; they were set to the lowest or highest finite value.",)


def _of_dicom(read: dicom.DicomVolume, path: Path) -> Volume:
    array, mended = finite_array(read.array)
    modality = read.modality or guess_modality(array)
    return Volume(array, read.geometry, read.name, modality, path, read.notes + mended, read.series, read.files)


def _volume(image: sitk.Image, name: str, modality: str, notes: tuple[str, ...], path: Path) -> Volume:
    check_scalar(path, image)
    array = sitk.GetArrayFromImage(image)
    array, mended = finite_array(array)
    if not modality:
        modality = guess_modality(array)
    return Volume(array, geometry_of(image), name, modality, path, notes + mended)
