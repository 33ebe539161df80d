"""Elements of a DICOM header, read leniently: numbers where only one meaning is possible, text that can be written."""

from __future__ import annotations

import math
import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_TEXT_TYPES = ("DS", "IS", "UI", "CS", "LO", "SH", "PN", "DA", "TM", "DT")


def numbers_of(text: str, count: int) -> tuple[float, ...] | None:
    """The numbers of a multi-valued text, or None if there are not exactly so many finite ones.

    A decimal comma is read as a point: values are separated by backslashes, so nothing else can be meant.
    """
    try:
        values = tuple(float(part.replace(",", ".")) for part in text.split("\\"))
    except ValueError:
        return None
    return values if len(values) == count and all(math.isfinite(value) for value in values) else None


def numbers(data: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """The numbers of an element, or None if it is absent or does not hold exactly so many finite ones."""
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
    """Whether an element is there and not empty, readable or not."""
    tag, _ = _dictionary(keyword)
    if tag not in data:
        return False
    value = getattr(data.get_item(tag), "value", None)
    return value is not None and value not in (b"", "")


def text(data: Dataset, keyword: str) -> str:
    """An element as text, decoded by the character set of the file, without characters that cannot be written."""
    stored = _stored_text(data, keyword)
    if stored is not None and _is_plain(stored):
        return " ".join(stored.decode("ascii").strip("\0 ").split())
    value = _value(data, keyword)
    if value is None and stored is not None:
        value = stored.decode("latin-1")
    return "" if value is None else clean_text("\\".join(str(part) for part in _parts(value)))


def items(data: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence, none if it is absent or cannot be read."""
    found = _value(data, keyword)
    return [] if found is None or isinstance(found, (str, bytes)) else list(found)


def clean_text(value: str) -> str:
    """Text on one line that every encoding of Unicode can hold: no control characters, no halves of characters."""
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
    """The bytes of an element that is stored as text, as long as pydicom, which refuses odd ones, has not read them."""
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
