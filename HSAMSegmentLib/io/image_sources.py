"""Images that are in memory already: SimpleITK, nibabel, a `Volume`, or an array with its geometry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import Volume, guess_modality
from HSAMSegmentLib.io.volume_files import finite_array, read_volume

if TYPE_CHECKING:
    import nibabel
    import SimpleITK as sitk

KINDS = "a path, a SimpleITK or nibabel image, a Volume, or an array with its Geometry"


def volume_of(scan: Any, *, series: str = "") -> Volume:
    """A scan from any source.

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
    """Voxels (k, j, i) and grid of an image in memory; None for another kind of object.

    Raises:
        RequestError: if it does not have three dimensions and one value per voxel, or the shapes do not match.
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
    """nibabel's arrays are (i, j, k), and its affine leads to RAS mm."""
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
