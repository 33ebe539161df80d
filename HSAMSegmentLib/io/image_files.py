"""One image file into one SimpleITK image, checked: NIfTI, NRRD, MetaImage and whatever else ITK reads.

Voxels and geometry are those of the file. What has to be mended is told in a note; what cannot be used is refused with
a reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.sitk_images import geometry_of
from HSAMSegmentLib.io.compressed_files import check_compressed
from HSAMSegmentLib.io.content_kind import content_problem
from HSAMSegmentLib.io.detached_files import readable_header
from HSAMSegmentLib.io.nifti_files import NiftiHeader, axes_shear_degrees, read_nifti_header, read_nifti_image
from HSAMSegmentLib.io.placement import NO_PLACE_NOTE, placement_notes
from HSAMSegmentLib.io.quiet import quiet_libraries

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr", ".img")
SEGMENTATION_SUFFIXES = (".seg.nrrd", ".seg.nhdr")

# Axes this close to right angles are a matter of rounding and not worth a word.
ROUNDING_SHEAR_DEGREES = 0.01
_LARGEST_MENDED_SHEAR_DEGREES = 3.0
_NRRD_HEADER_BYTES = 1 << 16
_PLAUSIBLE_VOXEL_MM = (0.005, 200.0)
# ITK's own switch for NIfTI files whose axes are not exactly at right angles; Slicer sets it too.
_PERMISSIVE_VARIABLE = "ITK_NIFTI_SFORM_PERMISSIVE"


def check_readable_file(path: Path) -> None:
    """Make sure that a file is there, may be read and has content.

    Raises:
        VolumeError: if not.
    """
    if path.is_symlink() and not path.exists():
        raise VolumeError(content_problem(path))
    if not path.exists():
        raise VolumeError(f'There is no file "{path}"; check the path.')
    if not path.is_file():
        raise VolumeError(f'"{path}" is not a file; choose an image file or a folder.')
    if not os.access(path, os.R_OK):
        raise VolumeError(f'The file "{path}" may not be read; check its permissions.')
    if path.stat().st_size == 0:
        raise VolumeError(f'The file "{path}" is empty; copy or download it again.')


def name_without_suffix(path: Path) -> str:
    """A file's name without the suffixes of image formats."""
    for suffix in SEGMENTATION_SUFFIXES + IMAGE_SUFFIXES + (".dcm", ".ima"):
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return path.name[: -len(suffix)]
    return path.name


def read_image(path: Path) -> tuple[sitk.Image, tuple[str, ...]]:
    """Read a file as one image of three dimensions; flat images become one slice.

    What the content is decides how it is read, not the name.

    Returns:
        The image (it may have several components per voxel) and notes on what had to be mended.

    Raises:
        VolumeError: if it is not an image, has more dimensions, or is damaged.
    """
    check_readable_file(path)
    problem = content_problem(path)
    if problem:
        raise VolumeError(problem)
    header = None if _format_by_content(path) else read_nifti_header(path)
    if header is not None:
        _check_dimensions(path, header.size)
        with _permissive_nifti(header):
            image = as_three_dimensional(read_nifti_image(path, header))
        return image, geometry_notes(image, header)
    check_compressed(path)
    with readable_header(path) as plain:
        image = _read_by_itk(path, plain)
    return image, (*geometry_notes(image), *placement_notes(path))


def _read_by_itk(path: Path, plain: Path) -> sitk.Image:
    """Read `plain`, which holds what `path` does."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(plain))
    image_io = _format_by_content(plain)
    if image_io:  # else ITK takes "a" with NRRD content for "a.nii" beside it
        reader.SetImageIO(image_io)
    with quiet_libraries():
        try:
            reader.ReadImageInformation()
            _check_dimensions(path, reader.GetSize())
            return as_three_dimensional(reader.Execute())
        except RuntimeError as error:
            raise VolumeError(_reason_of_failure(path, str(error))) from error


def _format_by_content(path: Path) -> str:
    """ITK's name for the format of a file, empty where its first bytes do not tell."""
    with open(path, "rb") as file:
        return "NrrdImageIO" if file.read(4) == b"NRRD" else ""


def check_scalar(path: Path, image: sitk.Image) -> None:
    """Make sure that each voxel is one real number.

    Raises:
        VolumeError: if it is a color, a vector or a complex number.
    """
    components = image.GetNumberOfComponentsPerPixel()
    if components in (3, 4) and image.GetPixelIDValue() == sitk.sitkVectorUInt8:
        raise VolumeError(f'"{path.name}" is a color picture, not a scan; choose the original gray-level image.')
    if components > 1:
        raise VolumeError(
            f'"{path.name}" holds {components} values per voxel; save the one to segment as a volume of its own.'
        )
    if image.GetPixelIDValue() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise VolumeError(f'"{path.name}" holds complex numbers; save the magnitude image and choose that.')


def as_three_dimensional(image: sitk.Image) -> sitk.Image:
    """The image with exactly three dimensions: trailing dimensions of one dropped, a flat image as one slice."""
    while image.GetDimension() > 3:
        size = list(image.GetSize())
        image = sitk.Extract(
            image, size[:-1] + [0], [0] * len(size), sitk.ExtractImageFilter.DIRECTIONCOLLAPSETOSUBMATRIX
        )
    return sitk.JoinSeries(image) if image.GetDimension() == 2 else image


def geometry_notes(image: sitk.Image, header: NiftiHeader | None = None) -> tuple[str, ...]:
    """Sentences on axes that are not at right angles and on transforms that are absent or contradict each other.

    Raises:
        VolumeError: if a NIfTI file's axes are so far from right angles that no grid of ITK comes close.
    """
    if header is not None and header.shear_degrees > ROUNDING_SHEAR_DEGREES:
        return (_mended_shear_note(header),)
    notes = [] if header is None else _nifti_notes(image, header)
    return (*notes, *grid_notes(geometry_of(image)))


def grid_notes(geometry: Geometry) -> tuple[str, ...]:
    """Sentences on axes that are not at right angles and on voxels of sizes that no scanner makes."""
    notes = []
    shear = axes_shear_degrees(geometry.direction_matrix)
    if shear > ROUNDING_SHEAR_DEGREES:
        notes.append(f"The slices are sheared by {shear:.1f} degrees (a tilted gantry); the result keeps that grid.")
    odd = [size for size in geometry.spacing_mm if not _PLAUSIBLE_VOXEL_MM[0] <= size <= _PLAUSIBLE_VOXEL_MM[1]]
    if odd:
        notes.append(f"A voxel size of {odd[0]:.3g} mm is not plausible; the header is wrong, or not in millimeters.")
    return tuple(notes)


def _nifti_notes(image: sitk.Image, header: NiftiHeader) -> list[str]:
    notes = []
    if header.qform_code <= 0 and header.sform_code <= 0:
        notes.append(NO_PLACE_NOTE)
    elif _itk_differs_from_sform(image, header):
        notes.append(
            "The file's sform places it differently than its qform or its voxel size (pixdim); the place that Slicer "
            "uses was taken."
        )
    if 0.0 in header.pixdim:
        notes.append("The file does not say its voxel size along every axis; 1 mm was taken.")
    return notes


def _check_dimensions(path: Path, size: tuple[int, ...]) -> None:
    frames = int(np.prod(size[3:])) if len(size) > 3 else 1
    if frames > 1:
        raise VolumeError(
            f'"{path.name}" holds {frames} volumes (it has {len(size)} dimensions); save the one to segment as a '
            "volume of its own."
        )
    if len(size) < 2:
        raise VolumeError(f'"{path.name}" has only one dimension; it is not an image.')


@contextmanager
def _permissive_nifti(header: NiftiHeader | None) -> Iterator[None]:
    """Let ITK read a NIfTI file whose axes are not at right angles; the variable is only looked at while reading."""
    if header is None or header.shear_degrees == 0.0 or _PERMISSIVE_VARIABLE in os.environ:
        yield
        return
    os.environ[_PERMISSIVE_VARIABLE] = "1"
    try:
        yield
    finally:
        os.environ.pop(_PERMISSIVE_VARIABLE, None)


def _mended_shear_note(header: NiftiHeader) -> str:
    shear = header.shear_degrees
    if shear > _LARGEST_MENDED_SHEAR_DEGREES:
        raise VolumeError(
            f"The axes of this NIfTI file are {shear:.1f} degrees away from right angles, which no scanner produces; "
            "resample it onto a rectangular grid, or save it as NRRD."
        )
    return (
        f"The axes in the file are {shear:.2g} degrees away from right angles; the closest rectangular grid was used, "
        "and the result is on that grid."
    )


def _itk_differs_from_sform(image: sitk.Image, header: NiftiHeader) -> bool:
    """Whether ITK, which takes the voxel size from elsewhere, placed the image differently than the sform."""
    if header.sform_code <= 0:
        return False
    ras = geometry_of(image).ijk_to_ras[:3]
    corners = np.array([[0, 0, 0, 1], [*[length - 1 for length in image.GetSize()], 1]], dtype=float).T
    tolerance = 0.1 * min(image.GetSpacing())
    return bool(np.abs((ras - header.sform) @ corners).max() > tolerance)


def _reason_of_failure(path: Path, message: str) -> str:
    """One sentence for an exception of ITK."""
    lower = message.lower()
    if path.name.lower().endswith((".nrrd", ".nhdr")) and _is_bzip2(path):
        return f'"{path.name}" is compressed with bzip2, which cannot be read here; save it again with gzip or raw.'
    if "orthonormal" in lower:
        return f'The axes of "{path.name}" are not at right angles; resample it onto a rectangular grid first.'
    if "unable to determine imageio" in lower:
        return f'"{path.name}" is not an image that can be read here (NIfTI, NRRD, MetaImage, DICOM), or it is damaged.'
    if path.name.lower().endswith((".nhdr", ".mhd", ".hdr")):
        return f'The voxels that "{path.name}" refers to cannot be read: their file is missing, cut off or damaged.'
    if "memory" in lower or "bad_alloc" in lower:
        return f'"{path.name}" does not fit into this computer\'s memory; crop or resample it first.'
    return f'The file "{path.name}" is cut off or damaged; copy or download it again.'


def _is_bzip2(path: Path) -> bool:
    with open(path, "rb") as file:
        start = file.read(_NRRD_HEADER_BYTES).lower().split(b"\n\n", 1)[0]
    return re.search(rb"^encoding:\s*(bzip2|bz2)", start, re.MULTILINE) is not None
