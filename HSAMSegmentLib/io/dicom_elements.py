"""Elements of a DICOM header, read leniently: numbers where only one meaning is possible, text that can be written."""

from __future__ import annotations

import math
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_TEXT_NUMBERS = ("DS", "IS")


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
    found = _raw(data, keyword)
    if found is None:
        return None
    if isinstance(found, bytes):
        return numbers_of(found.decode("ascii", "replace").strip("\0 "), count)
    parts = found if isinstance(found, (list, tuple)) or hasattr(found, "__iter__") else [found]
    try:
        values = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        return None
    return values if len(values) == count and all(math.isfinite(value) for value in values) else None


def number(data: Dataset, keyword: str, default: float = 0.0) -> float:
    """The number of an element, or the default."""
    values = numbers(data, keyword, 1)
    return default if values is None else values[0]


def text(data: Dataset, keyword: str) -> str:
    """An element as text, decoded by the character set of the file, without characters that cannot be written."""
    try:
        value = data.get(keyword)
    except Exception:  # noqa: BLE001 - pydicom raises what the broken value happens to cause
        value = _undecoded(data, keyword)
    if value is None:
        return ""
    parts = [value] if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__") else list(value)
    return clean_text("\\".join(str(part) for part in parts))


def items(data: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence, none if it is absent or cannot be read."""
    try:
        found = data.get(keyword)
        return [] if found is None or isinstance(found, (str, bytes)) else list(found)
    except Exception:  # noqa: BLE001 - as above
        return []


def clean_text(value: str) -> str:
    """Text on one line that every encoding of Unicode can hold: no control characters, no halves of characters."""
    shown = "".join(" " if character.isspace() else character for character in value)
    kept = (
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) == "Cs" else character
        for character in shown
        if unicodedata.category(character) not in ("Cc", "Cf")
    )
    return " ".join("".join(kept).split())


def _raw(data: Dataset, keyword: str):
    """Bytes of a number that is stored as text (pydicom refuses what it finds odd), else the value."""
    from pydicom.dataelem import RawDataElement
    from pydicom.datadict import dictionary_VR

    if keyword not in data:
        return None
    element = data.get_item(keyword)
    if isinstance(element, RawDataElement) and (element.VR or dictionary_VR(element.tag)) in _TEXT_NUMBERS:
        return element.value
    try:
        return data[keyword].value
    except Exception:  # noqa: BLE001 - as above
        return None


def _undecoded(data: Dataset, keyword: str) -> str | None:
    value = getattr(data.get_item(keyword), "value", None)
    return value.decode("latin-1") if isinstance(value, bytes) else None
