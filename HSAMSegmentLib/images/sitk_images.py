"""Convert between SimpleITK images and our arrays and geometries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import SimpleITK as sitk

from HSAMSegmentLib.images.geometry import Geometry


def geometry_of(image: sitk.Image) -> Geometry:
    """The grid of a 2-D or 3-D image; a 2-D image is one slice in the LPS xy-plane."""
    if image.GetDimension() == 3:
        return Geometry(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    size, spacing, origin, flat = image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()
    return Geometry(
        size=(*size, 1),
        spacing_mm=(*spacing, 1.0),
        origin_mm=(*origin, 0.0),
        direction=(flat[0], flat[1], 0.0, flat[2], flat[3], 0.0, 0.0, 0.0, 1.0),
    )


def image_of(array: np.ndarray, geometry: Geometry) -> sitk.Image:
    """A SimpleITK image with a copy of the array [k, j, i] on its grid."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    place_image(image, geometry)
    return image


def place_image(image: sitk.Image, geometry: Geometry) -> None:
    """Set spacing, origin and direction of a 3-D image from a grid."""
    image.SetSpacing([float(value) for value in geometry.spacing_mm])
    image.SetOrigin([float(value) for value in geometry.origin_mm])
    image.SetDirection([float(value) for value in geometry.direction])


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Suppress ITK's warnings within the context; we report what matters as notes or errors."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
