"""Read volumes from files and from memory.

Files are NIfTI, NRRD, MetaImage and other images, DICOM files and folders; sources in memory are SimpleITK and nibabel
images, a `Volume`, or an array with its geometry. Non-finite values are always replaced the same way, with an entry in
`Volume.notes`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from HSAMSegmentLib.errors import RequestError, VolumeError
from HSAMSegmentLib.images.geometry import Geometry
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

if TYPE_CHECKING:
    import nibabel


__all__ = ["Series", "finite_array", "list_series", "read_volume"]

KINDS = "a path, a SimpleITK or nibabel image, a Volume, or an array with its Geometry"


def read_volume(path: str | Path, *, series: str | None = None) -> Volume:
    """Read a scan.

    Args:
        path: a file (NIfTI, NRRD, MetaImage, a DICOM file) or a folder with DICOM files.
        series: instance UID (or its end), number or description of the series, if a folder holds several.

    Returns:
        The volume on the grid of the file; 2-D images become one slice.

    Raises:
        VolumeError: if the file does not exist, is not a scalar volume, or is damaged.
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
    """Replace non-finite values, with a note if there were any.

    NaN and minus infinity become the lowest finite value (background in any scan), infinity the highest.

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


def volume_of(scan: Any, *, series: str = "") -> Volume:
    """Convert a scan from any source to a volume.

    Args:
        scan: a path, a SimpleITK or nibabel image, a `Volume`, or (array (k, j, i), `Geometry`).
        series: DICOM series of a folder.

    Raises:
        RequestError: if the kind of source is unknown, or the shapes do not match.
        VolumeError: if it cannot be read, or has no finite voxel.
    """
    if isinstance(scan, (str, Path)):
        return read_volume(scan, series=series or None)
    if isinstance(scan, Volume):
        return scan
    found = array_and_geometry(scan)
    if found is None:
        raise RequestError(f"A scan is {KINDS}, not {type(scan)}.")
    array, geometry = found
    finite, notes = finite_array(array)
    return Volume(finite, geometry, modality=guess_modality(finite), notes=notes)


def array_and_geometry(source: Any) -> tuple[np.ndarray, Geometry] | None:
    """Voxels (k, j, i) and grid of an image in memory; None for any other object.

    Raises:
        RequestError: if it is not 3-D with one value per voxel, or the shapes do not match.
    """
    if isinstance(source, tuple) and len(source) == 2 and isinstance(source[1], Geometry):
        return _checked(np.asarray(source[0]), source[1])
    if hasattr(source, "GetSpacing") and hasattr(source, "GetDirection"):
        return _of_sitk(source)
    if hasattr(source, "affine") and hasattr(source, "dataobj"):
        return _of_nibabel(source)
    return None


def _checked(array: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, Geometry]:
    if tuple(array.shape) != geometry.shape:
        raise RequestError(
            f"The array has the shape {tuple(array.shape)} and the geometry {geometry.shape}; both are (k, j, i)."
        )
    return array, geometry


def _of_sitk(image: sitk.Image) -> tuple[np.ndarray, Geometry]:
    import SimpleITK as sitk

    from HSAMSegmentLib.images.sitk_images import geometry_of

    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise RequestError("A scan or label map has three dimensions and one value per voxel.")
    return sitk.GetArrayFromImage(image), geometry_of(image)


def _of_nibabel(image: nibabel.spatialimages.SpatialImage) -> tuple[np.ndarray, Geometry]:
    """Convert from nibabel, whose arrays are (i, j, k) and whose affine maps to RAS mm."""
    array = np.asanyarray(image.dataobj)
    if array.ndim != 3:
        raise RequestError(f"A scan or label map has three dimensions; this image has {array.ndim}.")
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(image.affine, dtype=np.float64)
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    if not spacing.all():
        raise RequestError("The affine of the image has a spacing of zero; set a valid one.")
    geometry = Geometry(
        size=(int(array.shape[0]), int(array.shape[1]), int(array.shape[2])),
        spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        origin_mm=(float(to_lps[0, 3]), float(to_lps[1, 3]), float(to_lps[2, 3])),
        direction=tuple(float(value) for value in (to_lps[:3, :3] / spacing).ravel()),
    )
    return np.ascontiguousarray(array.transpose(2, 1, 0)), geometry
