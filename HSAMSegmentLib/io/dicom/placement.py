"""Position, pixel spacing and rescaling of an image in a DICOM file.

Classic files state these at the top level, enhanced ones in functional groups, per frame or shared. Elements are parsed
leniently: numbers where only one meaning is possible, text that can be encoded.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


_TEXT_TYPES = ("DS", "IS", "UI", "CS", "LO", "SH", "PN", "DA", "TM", "DT")

# Within this tolerance of unit length and right angles, directions are merely rounded; looser ones are repaired.
_EXACT, _MENDED = 1e-4, 0.02
_GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
}


def numbers_of(text: str, count: int) -> tuple[float, ...] | None:
    """Parse a multi-valued text into exactly this many finite numbers, or None.

    A decimal comma is read as a point: values are separated by backslashes, so it is unambiguous.
    """
    try:
        values = tuple(float(part.replace(",", ".")) for part in text.split("\\"))
    except ValueError:
        return None
    return values if len(values) == count and all(math.isfinite(value) for value in values) else None


def numbers(data: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """The numbers of an element; None if it is absent or does not hold exactly this many finite ones."""
    stored = _stored_text(data, keyword)
    if stored is not None:
        return numbers_of(stored.decode("ascii", "replace").strip("\0 "), count)
    found = _value(data, keyword)
    if found is None:
        return None
    try:
        values = tuple(float(part) for part in _parts(found))
    except (TypeError, ValueError):
        return None
    return values if len(values) == count and all(math.isfinite(value) for value in values) else None


def number(data: Dataset, keyword: str, default: float = 0.0) -> float:
    """The number of an element, or the default."""
    values = numbers(data, keyword, 1)
    return default if values is None else values[0]


def is_given(data: Dataset, keyword: str) -> bool:
    """Whether an element exists and is not empty, readable or not."""
    tag, _ = _dictionary(keyword)
    if tag not in data:
        return False
    value = getattr(data.get_item(tag), "value", None)
    return value is not None and value not in (b"", "")


def text(data: Dataset, keyword: str) -> str:
    """An element as text, decoded by the file's character set, without characters that cannot be encoded."""
    stored = _stored_text(data, keyword)
    if stored is not None and _is_plain(stored):
        return " ".join(stored.decode("ascii").strip("\0 ").split())
    value = _value(data, keyword)
    if value is None and stored is not None:
        value = stored.decode("latin-1")
    return "" if value is None else clean_text("\\".join(str(part) for part in _parts(value)))


def items(data: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none if it is absent or unreadable."""
    found = _value(data, keyword)
    return [] if found is None or isinstance(found, (str, bytes)) else list(found)


def clean_text(value: str) -> str:
    """Single-line text that every Unicode encoding can hold: no control characters, no lone surrogates."""
    shown = "".join(" " if character.isspace() else character for character in value)
    kept = (
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) == "Cs" else character
        for character in shown
        if unicodedata.category(character) not in ("Cc", "Cf")
    )
    return " ".join("".join(kept).split())


def _value(data: Dataset, keyword: str) -> Any:
    tag, _ = _dictionary(keyword)
    try:
        return data[tag].value if tag in data else None
    except Exception:  # noqa: BLE001 - pydicom raises what a broken value happens to cause
        return None


def _parts(value: Any) -> list[Any]:
    return [value] if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__") else list(value)


def _stored_text(data: Dataset, keyword: str) -> bytes | None:
    """Raw bytes of a text element, available until pydicom, which rejects malformed ones, has parsed it."""
    tag, usual_type = _dictionary(keyword)
    if tag not in data:
        return None
    element = data.get_item(tag)
    is_text = (getattr(element, "VR", None) or usual_type) in _TEXT_TYPES
    value = getattr(element, "value", None)
    return value if is_text and isinstance(value, bytes) else None


def _is_plain(stored: bytes) -> bool:
    return stored.isascii() and b"\x1b" not in stored and stored.rstrip(b"\0").decode("ascii").isprintable()


@cache
def _dictionary(keyword: str) -> Any:
    """Tag and type of an element."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.tag import Tag

    tag = Tag(tag_for_keyword(keyword) or keyword)
    return tag, dictionary_VR(tag)


@dataclass(frozen=True)
class FramePlace:
    """Placement and rescaling of one image.

    Attributes:
        position: LPS mm of the first pixel, or None.
        orientation: six numbers, as in the file, or None.
        spacing: spacing of rows and of columns in mm, or None.
        rescale: slope and intercept from stored to real values; NaN if the file has unreadable ones.
    """

    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    rescale: tuple[float, float]


def place_of(data: Dataset) -> FramePlace:
    """The placement of the only or first image of a file."""
    shared = _first(items(data, "SharedFunctionalGroupsSequence"))
    own = _first(items(data, "PerFrameFunctionalGroupsSequence"))
    return _place([*_groups(own), *_groups(shared), data])


def frame_places(data: Dataset, frames: int) -> tuple[FramePlace, ...]:
    """The placement of each frame of a file, in order; empty unless the file has one item per frame."""
    shared = _groups(_first(items(data, "SharedFunctionalGroupsSequence")))
    own = items(data, "PerFrameFunctionalGroupsSequence")
    if len(own) != frames:
        return ()
    return tuple(_place([*_groups(frame), *shared, data], position_from=_groups(frame)) for frame in own)


def usable_orientation(found: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Directions of a row and a column: unchanged, repaired if nearly right, or None if unusable."""
    if found is None:
        return None
    row, column = np.array(found[:3]), np.array(found[3:])
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    deviation = max(float(np.abs(lengths - 1).max()), abs(float(row @ column)))
    if deviation <= _EXACT:
        return found
    if deviation > _MENDED:
        return None
    row = row / lengths[0]
    column = column - (column @ row) * row
    return tuple(float(value) for value in (*row, *(column / np.linalg.norm(column))))


def _first(found: list[Dataset]) -> Dataset | None:
    return found[0] if found else None


def _groups(item: Dataset | None) -> list[Dataset]:
    if item is None:
        return []
    return [group for keyword in _GROUPS for group in items(item, keyword)]


def _place(sources: list[Dataset], position_from: list[Dataset] | None = None) -> FramePlace:
    position = _number_in(sources if position_from is None else position_from, "ImagePositionPatient", 3)
    slope, intercept = _scale(sources, "RescaleSlope", 1.0), _scale(sources, "RescaleIntercept", 0.0)
    return FramePlace(
        position=position,
        orientation=_number_in(sources, "ImageOrientationPatient", 6),
        spacing=_spacing(sources),
        rescale=(slope or 1.0, intercept),
    )


def _number_in(sources: Iterable[Dataset], keyword: str, count: int) -> tuple[float, ...] | None:
    for source in sources:
        found = numbers(source, keyword, count)
        if found is not None:
            return found
    return None


def _scale(sources: list[Dataset], keyword: str, default: float) -> float:
    """Slope or intercept; NaN if present but not a number, since no default may replace it."""
    found = _number_in(sources, keyword, 1)
    if found is not None:
        return found[0]
    return default if not any(is_given(source, keyword) for source in sources) else math.nan


def _spacing(sources: list[Dataset]) -> tuple[float, ...] | None:
    """Pixel spacing in the patient; spacing at the detector is divided by the magnification if that is known."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        found = _number_in(sources, keyword, 2)
        if found is None or min(found) <= 0:
            continue
        if keyword == "ImagerPixelSpacing":
            magnification = number(sources[-1], "EstimatedRadiographicMagnificationFactor", 1.0)
            found = tuple(value / magnification for value in found) if magnification > 0 else found
        return found
    return None
