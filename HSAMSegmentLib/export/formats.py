"""The output formats of a segmentation, selected by name or by file name suffix."""

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
        name: as for `--format`.
        suffix: file name suffix for folder runs.
        endings: suffixes that select it.
        write: writes labels to a path; the last argument is `overwrite`.
        needs_dicom: whether it references the DICOM images of the scan.
        require: raises RequestError if a required package is missing.
    """

    name: str
    suffix: str
    endings: tuple[str, ...]
    write: Write
    needs_dicom: bool = False
    require: Callable[[], None] = lambda: None

    @property
    def is_label_map(self) -> bool:
        """Whether it is one of the label map formats that every installation reads and writes."""
        return self.suffix in SEGMENTATION_OUTPUT_SUFFIXES

    def files(self, path: Path) -> tuple[Path, ...]:
        """All files written for a path: the file, and a sidecar with names if the format cannot store them."""
        return (path, names_path(path)) if self.is_label_map and not self.suffix.endswith(".nrrd") else (path,)

    def check(self, path: Path, geometry: Geometry, origin: Origin) -> None:
        """Ensure, before any work, that labels on this grid can be written.

        Raises:
            OutputError: if the format cannot store the grid, or needs DICOM images and the scan has none.
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
"""All formats; if several suffixes match a name, the first format wins."""
FORMAT_NAMES = tuple(item.name for item in FORMATS)
ENDINGS = tuple(ending for item in FORMATS for ending in item.endings)


def format_named(name: str) -> ResultFormat:
    """Find a format by its name or suffix, ignoring case.

    Raises:
        RequestError: if there is no such format; lists the available ones.
    """
    wanted = name.strip().lower()
    for item in FORMATS:
        if wanted in (item.name, item.suffix, item.suffix.lstrip("."), *item.endings):
            return item
    raise RequestError(f"There is no format '{name}'; choose one of {', '.join(FORMAT_NAMES)}.")


def format_of(path: Path, name: str = "") -> ResultFormat:
    """Determine the format of a path: the named one, or that of its suffix.

    Raises:
        RequestError: if there is no format of that name.
        OutputError: if the suffix is unknown, or contradicts the named format.
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
    """Write a segmentation in any format, atomically.

    Args:
        segmentation: labels on the grid of the scan.
        path: the file; its suffix determines the format, unless one is named.
        origin: the scan and the model, which DICOM formats reference.
        format_name: name of a format; "" for that of the suffix.
        overwrite: replace an existing file.

    Raises:
        RequestError: if the format is unknown, or a required package is missing (says how to install it).
        OutputError: if the suffix is unknown or does not match, if the format cannot store the labels (DICOM formats
            need a DICOM scan), or if the file exists or cannot be written.
    """
    chosen = format_of(path, format_name)
    chosen.require()
    chosen.write(segmentation, path, origin, overwrite)
