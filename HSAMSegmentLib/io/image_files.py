"""Read an image file into a validated SimpleITK image: NIfTI, NRRD, MetaImage and whatever else ITK reads.

Voxels and geometry are those of the file. Repairs are reported in notes; unusable files are rejected with a reason: a
pointer, a web page or an archive named like an image, a picture without a position in the patient.

A header may name a separate file with its voxels. ITK and its libraries take a "%" in that name for the pattern of a
series, and then return whatever is in memory. Such a header is read through a copy with a plain data file name.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.sitk_images import geometry_of
from HSAMSegmentLib.io.compressed_files import check_compressed
from HSAMSegmentLib.io.nifti_files import NiftiHeader, axes_shear_degrees, read_nifti_header, read_nifti_image
from HSAMSegmentLib.io.quiet_libraries import quiet_libraries

NO_PLACE_NOTE = "The file does not say where it is in the patient; left and right are not sure."
NO_SPACING_NOTE = "The file does not say its voxel size along every axis; 1 mm was taken."
_HEADER_BYTES = 1 << 16
_PICTURES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")
_METAIMAGE_PLACE = re.compile(r"^(TransformMatrix|Rotation|Orientation)\s*=", re.MULTILINE)
_METAIMAGE_SPACING = re.compile(r"^(ElementSpacing|ElementSize)\s*=", re.MULTILINE)
_NRRD_SPACE = re.compile(r"^space(\s+dimension)?:", re.MULTILINE | re.IGNORECASE)
_NRRD_DIRECTIONS = re.compile(r"^space directions:(.*)$", re.MULTILINE | re.IGNORECASE)
_NRRD_SPACINGS = re.compile(r"^spacings:(.*)$", re.MULTILINE | re.IGNORECASE)

_MOST_HEADER_BYTES = 1 << 20
_FIELDS = {
    ".mhd": re.compile(rb"^(ElementDataFile\s*=\s*)(.+?)(\s*)$", re.MULTILINE),
    ".nhdr": re.compile(rb"^(data ?file:\s*)(.+?)(\s*)$", re.MULTILINE | re.IGNORECASE),
}
_PLAIN = re.compile(r"[\w.,\- ]+")

_START_BYTES = 1024
_POINTER_BYTES = 4096
_AGAIN = "download the image again, signed in where that is needed"
_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "is a pointer of Git LFS and not the image itself; run 'git lfs pull' to get it"),
    (b"%pdf", "is a PDF document and not an image; choose the scan"),
    (b"pk\x03\x04", "is a ZIP archive; unpack it and choose the image in it"),
    (b"rar!", "is a RAR archive; unpack it and choose the image in it"),
    (b"7z\xbc\xaf", "is a 7z archive; unpack it and choose the image in it"),
    (b"bzh", "is compressed with bzip2, which image formats do not use; unpack it with bunzip2"),
    (b"\xfd7zxz", "is compressed with xz, which image formats do not use; unpack it with unxz"),
    (b"(\xb5/\xfd", "is compressed with zstd, which image formats do not use; unpack it with zstd -d"),
    (b"<!doctype html", f"is a web page and not an image; {_AGAIN}"),
    (b"<html", f"is a web page and not an image; {_AGAIN}"),
    (b"<?xml", f"is an XML document and not an image; {_AGAIN}"),
    (b"\0\5\x16\7", "holds attributes of macOS and not an image; choose the file without '._' in front"),
)

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr", ".img")
SEGMENTATION_SUFFIXES = (".seg.nrrd", ".seg.nhdr")

# Axes this close to right angles are merely rounded and not reported.
ROUNDING_SHEAR_DEGREES = 0.01
_LARGEST_MENDED_SHEAR_DEGREES = 3.0
_NRRD_HEADER_BYTES = 1 << 16
_PLAUSIBLE_VOXEL_MM = (0.005, 200.0)
# ITK's own switch for NIfTI files with axes that are not exactly perpendicular; Slicer sets it too.
_PERMISSIVE_VARIABLE = "ITK_NIFTI_SFORM_PERMISSIVE"


def placement_notes(path: Path) -> tuple[str, ...]:
    """Sentences on a missing orientation or voxel size, for which ITK assumes the axes of LPS and 1 mm."""
    name = path.name.lower()
    if name.endswith(_PICTURES):
        return (NO_PLACE_NOTE,)
    if name.endswith((".nrrd", ".nhdr")) or _is_nrrd(path):
        return _nrrd_notes(_header(path, end="\n\n"))
    if name.endswith((".mha", ".mhd")):
        return _metaimage_notes(_header(path, end="ElementDataFile"))
    return ()


def _is_nrrd(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"NRRD"


def _header(path: Path, end: str) -> str:
    with open(path, "rb") as file:
        text = file.read(_HEADER_BYTES).decode("latin-1").replace("\r\n", "\n")
    return text.split(end, 1)[0]


def _nrrd_notes(header: str) -> tuple[str, ...]:
    directions = _NRRD_DIRECTIONS.search(header)
    has_place = _NRRD_SPACE.search(header) is not None and directions is not None
    spacings = _NRRD_SPACINGS.search(header)
    has_spacing = directions is not None or (spacings is not None and "nan" not in spacings.group(1).lower())
    return (() if has_place else (NO_PLACE_NOTE,)) + (() if has_spacing else (NO_SPACING_NOTE,))


def _metaimage_notes(header: str) -> tuple[str, ...]:
    notes = () if _METAIMAGE_PLACE.search(header) else (NO_PLACE_NOTE,)
    return notes + (() if _METAIMAGE_SPACING.search(header) else (NO_SPACING_NOTE,))


@contextmanager
def readable_header(path: Path) -> Iterator[Path]:
    """Yield a path that ITK reads correctly: the file itself, or a temporary copy of its header.

    Raises:
        VolumeError: if the file with the voxels is missing; names it.
    """
    data = _data_file(path)
    if data is None:
        yield path
        return
    if not data.is_file():
        raise VolumeError(
            f'The voxels that "{path.name}" refers to cannot be read: there is no file "{data.name}" beside it. Copy '
            "it, too."
        )
    if _PLAIN.fullmatch(data.name):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="hsamsegment-") as folder:
        yield _plain_copy(path, data, Path(folder))


def _data_file(path: Path) -> Path | None:
    """The one data file of a detached header; None if it is missing, or a list or series."""
    field = _FIELDS.get(path.suffix.lower())
    if field is None:
        return None
    match = field.search(path.read_bytes()[:_MOST_HEADER_BYTES])
    if match is None:
        return None
    name = os.fsdecode(match.group(2))
    if name.upper() == "LOCAL" or name.upper().startswith("LIST"):
        return None
    is_series = "%" in name and re.search(r"\s-?\d+\s+-?\d+\s+-?\d+", name) is not None
    named = path.parent / name
    return None if is_series and not named.is_file() else named


def _plain_copy(path: Path, data: Path, folder: Path) -> Path:
    """A header in `folder` with the data file name `voxels`; the data are linked, or copied if links do not work."""
    suffix = ".zraw" if data.suffix.lower() == ".zraw" else ".gz" if data.suffix.lower() == ".gz" else ".raw"
    beside = folder / f"voxels{suffix}"
    try:
        os.symlink(data.resolve(), beside)
    except OSError:
        shutil.copyfile(data, beside)
    content = path.read_bytes()
    field = _FIELDS[path.suffix.lower()]
    renamed = field.sub(lambda match: match.group(1) + beside.name.encode() + match.group(3), content, count=1)
    copy = folder / f"header{path.suffix.lower()}"
    copy.write_bytes(renamed)
    return copy


def content_problem(path: Path) -> str:
    """A sentence on why a file is not an image; empty if its first bytes look plausible.

    Args:
        path: a readable file, or a broken link.
    """
    if path.is_symlink() and not path.exists():
        return f'"{path.name}" is a link without content{_where_to_get(os.readlink(path))}.'
    with open(path, "rb") as file:
        start = file.read(_START_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    size = path.stat().st_size
    if b"annex/objects" in start and size < _POINTER_BYTES:
        return f"\"{path.name}\" is a pointer of git-annex and not the image itself; run 'git annex get' to get it."
    for mark, meaning in _STARTS:
        if start.startswith(mark):
            return f'"{path.name}" {meaning}.'
    if start.startswith((b"{", b"[")) and b"\0" not in start:
        return f'"{path.name}" is a JSON document and not an image; {_AGAIN}.'
    return ""


def _where_to_get(target: str) -> str:
    if "annex" in target:
        return " (git-annex); run 'git annex get' to get it"
    return f": {target} does not exist; copy the file itself"


def check_readable_file(path: Path) -> None:
    """Ensure that a file exists, is readable and has content.

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
    """File name without the suffixes of image formats."""
    for suffix in SEGMENTATION_SUFFIXES + IMAGE_SUFFIXES + (".dcm", ".ima"):
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return path.name[: -len(suffix)]
    return path.name


def read_image(path: Path) -> tuple[sitk.Image, tuple[str, ...]]:
    """Read a file as one 3-D image; 2-D images become one slice.

    The format is detected from the content, not the name.

    Returns:
        The image (possibly with several components per voxel) and notes on repairs.

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
    """Read `plain`, which has the content of `path`."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(plain))
    image_io = _format_by_content(plain)
    if image_io:  # otherwise ITK takes "a" with NRRD content for "a.nii" beside it
        reader.SetImageIO(image_io)
    with quiet_libraries():
        try:
            reader.ReadImageInformation()
            _check_dimensions(path, reader.GetSize())
            return as_three_dimensional(reader.Execute())
        except RuntimeError as error:
            raise VolumeError(_reason_of_failure(path, str(error))) from error


def _format_by_content(path: Path) -> str:
    """ITK's name for the format of a file; empty if its first bytes do not tell."""
    with open(path, "rb") as file:
        return "NrrdImageIO" if file.read(4) == b"NRRD" else ""


def check_scalar(path: Path, image: sitk.Image) -> None:
    """Ensure that each voxel is one real number.

    Raises:
        VolumeError: if voxels are colors, vectors or complex numbers.
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
    """Make an image exactly 3-D: drop trailing dimensions of length one; a 2-D image becomes one slice."""
    while image.GetDimension() > 3:
        size = list(image.GetSize())
        image = sitk.Extract(
            image, size[:-1] + [0], [0] * len(size), sitk.ExtractImageFilter.DIRECTIONCOLLAPSETOSUBMATRIX
        )
    return sitk.JoinSeries(image) if image.GetDimension() == 2 else image


def geometry_notes(image: sitk.Image, header: NiftiHeader | None = None) -> tuple[str, ...]:
    """Sentences on axes that are not perpendicular, and on missing or contradictory transforms.

    Raises:
        VolumeError: if a NIfTI file's axes are too far from perpendicular for any ITK grid.
    """
    if header is not None and header.shear_degrees > ROUNDING_SHEAR_DEGREES:
        return (_mended_shear_note(header),)
    notes = [] if header is None else _nifti_notes(image, header)
    return (*notes, *grid_notes(geometry_of(image)))


def grid_notes(geometry: Geometry) -> tuple[str, ...]:
    """Sentences on axes that are not perpendicular and on implausible voxel sizes."""
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
    """Let ITK read a NIfTI file with axes that are not perpendicular; the variable is read only while reading."""
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
    """Whether ITK, which takes the voxel size from elsewhere, placed the image differently from the sform."""
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
