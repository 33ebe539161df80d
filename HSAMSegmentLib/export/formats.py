"""The formats in which a segmentation can be written, by their names and by the ends of file names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from HSAMSegmentLib.errors import OutputError, RequestError
from HSAMSegmentLib.export import dicom_seg, rtstruct, surface_files
from HSAMSegmentLib.export.source_images import Origin
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.labels.label_maps import names_path
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.segmentation_files import (
    SEGMENTATION_OUTPUT_SUFFIXES,
    require_geometry_fits,
    write_segmentation,
)

Write = Callable[[Segmentation, Path, Origin, bool], object]


@dataclass(frozen=True)
class ResultFormat:
    """A format.

    Attributes:
        name: as `--format` has it.
        suffix: end of the file names that a folder run gives.
        endings: suffixes of file names that select it.
        write: writes labels to a path; the last argument is whether to overwrite.
        needs_dicom: whether it refers to the DICOM images of the scan.
        require: raises RequestError if a package that it needs is missing.
    """

    name: str
    suffix: str
    endings: tuple[str, ...]
    write: Write
    needs_dicom: bool = False
    require: Callable[[], None] = lambda: None

    @property
    def is_label_map(self) -> bool:
        """Whether it is one of the label maps that every installation reads and writes."""
        return self.suffix in SEGMENTATION_OUTPUT_SUFFIXES

    def files(self, path: Path) -> tuple[Path, ...]:
        """Everything that is written for a path: the file, and the names beside it where it has no place for them."""
        return (path, names_path(path)) if self.is_label_map and not self.suffix.endswith(".nrrd") else (path,)

    def check(self, path: Path, geometry: Geometry, origin: Origin) -> None:
        """Make sure, before any work, that labels on this grid can be written.

        Raises:
            OutputError: if the format cannot hold the grid, or needs DICOM images and the scan is none.
        """
        if self.is_label_map:
            require_geometry_fits(path, geometry)
        if self.needs_dicom:
            from HSAMSegmentLib.export.source_images import read_source_images

            read_source_images(path, origin.dicom_files, geometry)


def _write_labels(segmentation: Segmentation, path: Path, origin: Origin, overwrite: bool) -> None:
    write_segmentation(segmentation, path, overwrite=overwrite)


def _write_dicom_seg(segmentation: Segmentation, path: Path, origin: Origin, overwrite: bool) -> None:
    dicom_seg.write_dicom_seg(segmentation, path, origin, overwrite=overwrite)


def _write_rtstruct(segmentation: Segmentation, path: Path, origin: Origin, overwrite: bool) -> None:
    rtstruct.write_rtstruct(segmentation, path, origin, overwrite=overwrite)


def _write_surfaces(segmentation: Segmentation, path: Path, origin: Origin, overwrite: bool) -> None:
    surface_files.write_surfaces(segmentation, path, overwrite=overwrite)


FORMATS: tuple[ResultFormat, ...] = (
    *(ResultFormat(suffix.lstrip("."), suffix, (suffix,), _write_labels) for suffix in SEGMENTATION_OUTPUT_SUFFIXES),
    ResultFormat("rtstruct", ".rtstruct.dcm", (".rtstruct.dcm",), _write_rtstruct, needs_dicom=True),
    ResultFormat(
        "dicom-seg", ".seg.dcm", (".dcm",), _write_dicom_seg, needs_dicom=True, require=dicom_seg.require_highdicom
    ),
    *(
        ResultFormat(
            suffix.lstrip("."), suffix, (suffix,), _write_surfaces, require=surface_files.require_surface_libraries
        )
        for suffix in surface_files.SURFACE_SUFFIXES
    ),
)
"""All formats; of several whose ending fits a name the first counts."""
FORMAT_NAMES = tuple(item.name for item in FORMATS)
ENDINGS = tuple(ending for item in FORMATS for ending in item.endings)


def format_named(name: str) -> ResultFormat:
    """A format by its name or by its suffix, in any case.

    Raises:
        RequestError: if there is no such format; names those that there are.
    """
    wanted = name.strip().lower()
    for item in FORMATS:
        if wanted in (item.name, item.suffix, item.suffix.lstrip("."), *item.endings):
            return item
    raise RequestError(f"There is no format '{name}'; choose one of {', '.join(FORMAT_NAMES)}.")


def format_of(path: Path, name: str = "") -> ResultFormat:
    """The format in which a path is written: the named one, or that of its ending.

    Raises:
        RequestError: if there is no format of that name.
        OutputError: if the ending is unknown, or belongs to another format than the named one.
    """
    found = next((item for item in FORMATS if path.name.lower().endswith(item.endings)), None)
    if name:
        named = format_named(name)
        own = (*named.endings, *((".dcm",) if named.needs_dicom else ()))
        if not path.name.lower().endswith(own):
            raise OutputError(
                f'"{path.name}" is not a name for a file of the format {named.name}; end it with {own[-1]}.'
            )
        return named
    if found is None:
        raise OutputError(
            f'A segmentation cannot be written as "{path.name}"; end the name with one of {", ".join(ENDINGS)}.'
        )
    return found


def save_segmentation(
    segmentation: Segmentation, path: Path, origin: Origin, *, format_name: str = "", overwrite: bool = False
) -> None:
    """Write a segmentation in any format, completely or not at all.

    Args:
        segmentation: labels on the grid of the scan.
        path: the file; its ending is the format, unless one is named.
        origin: the scan and the model, which DICOM formats refer to.
        format_name: name of a format, "" for that of the ending.
        overwrite: whether an existing file may be replaced.

    Raises:
        RequestError: if the format is unknown, or a package that it needs is missing (says how to install it).
        OutputError: if the ending is unknown or does not fit, if the format cannot hold the labels (DICOM formats need
            a DICOM scan), if the file exists, or if it cannot be written.
    """
    chosen = format_of(path, format_name)
    chosen.require()
    chosen.write(segmentation, path, origin, overwrite)
