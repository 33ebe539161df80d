"""Whether a file says where its voxels are in the patient: NRRD, MetaImage, and pictures. NIfTI has its own rules."""

from __future__ import annotations

import re
from pathlib import Path

NO_PLACE_NOTE = "The file does not say where it is in the patient; left and right are not sure."
NO_SPACING_NOTE = "The file does not say its voxel size along every axis; 1 mm was taken."
_HEADER_BYTES = 1 << 16
_PICTURES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")
_METAIMAGE_PLACE = re.compile(r"^(TransformMatrix|Rotation|Orientation)\s*=", re.MULTILINE)
_METAIMAGE_SPACING = re.compile(r"^(ElementSpacing|ElementSize)\s*=", re.MULTILINE)
_NRRD_SPACE = re.compile(r"^space(\s+dimension)?:", re.MULTILINE | re.IGNORECASE)
_NRRD_DIRECTIONS = re.compile(r"^space directions:(.*)$", re.MULTILINE | re.IGNORECASE)
_NRRD_SPACINGS = re.compile(r"^spacings:(.*)$", re.MULTILINE | re.IGNORECASE)


def placement_notes(path: Path) -> tuple[str, ...]:
    """Sentences on an orientation or voxel size that a file does not give; ITK then takes the axes of LPS and 1 mm."""
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
