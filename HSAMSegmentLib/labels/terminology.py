"""From names to labels with colors and codes, and Slicer's text form of a code.

A name is only taken for a known structure when its words are exactly those of one of its names, in any order: "Left
kidney", "kidney_left" and "KidneyLeft" are; "left kidney tumor", "LK" or "kidney 1" are not, and stay without a code.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from HSAMSegmentLib.labels.label_set import Code, Label, LabelSet, Terminology
from HSAMSegmentLib.labels.structures import KNOWN_STRUCTURES, Structure
from HSAMSegmentLib.runtime.serialization import triple

CATEGORY_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
ANATOMIC_CONTEXT = "Anatomic codes - DICOM master list"
_NO_CODE = "^^"
_GOLDEN_RATIO = 0.618033988749895


def find_structure(name: str) -> Structure | None:
    """The known structure that a name means, or None if that is not sure."""
    return _structures_by_words().get(_words(name))


def label_for(value: int, name: str) -> Label:
    """A label with this name, and the color and code of the structure that the name means, if it is known."""
    structure = find_structure(name)
    if structure is None:
        return Label(value, name, fallback_color(value), None, single_piece=False)
    return Label(value, name, structure.color, structure.terminology, structure.single_piece)


def label_set_of(names: Mapping[int, str]) -> LabelSet:
    """Labels for values and names, ascending; a name that occurs again gets its value added."""
    labels: list[Label] = []
    for value in sorted(names):
        name = unique_name(names[value].strip() or f"Label {value}", [label.name for label in labels], value)
        labels.append(label_for(value, name))
    return LabelSet(tuple(labels))


def unique_name(name: str, taken: Iterable[str], value: int) -> str:
    """The name, with the value added if it is taken already."""
    taken = set(taken)
    candidate = name
    while candidate in taken:
        candidate = f"{candidate} ({value})"
    return candidate


def fallback_color(value: int) -> tuple[float, float, float]:
    """A color for a structure that is not known: different for neighboring values, the same each time."""
    hue = (0.55 + value * _GOLDEN_RATIO) % 1.0
    saturation = (0.75, 0.5, 0.95)[value % 3]
    brightness = (0.95, 0.8)[value // 3 % 2]
    return triple(round(part, 6) for part in colorsys.hsv_to_rgb(hue, saturation, brightness))


def terminology_tag(terminology: Terminology) -> str:
    """Slicer's text for a code: seven parts separated by "~", of which the anatomic region stays empty."""
    codes = [terminology.category, terminology.type, terminology.modifier]
    return "~".join([CATEGORY_CONTEXT, *(_code_text(code) for code in codes), ANATOMIC_CONTEXT, _NO_CODE, _NO_CODE])


def terminology_from_tag(text: str) -> Terminology | None:
    """Read Slicer's text for a code; None if it holds no category or no type."""
    parts = text.split("~")
    if len(parts) < 3:
        return None
    category, kind = _code_from_text(parts[1]), _code_from_text(parts[2])
    if category is None or kind is None:
        return None
    return Terminology(category, kind, _code_from_text(parts[3]) if len(parts) > 3 else None)


def _code_text(code: Code | None) -> str:
    return _NO_CODE if code is None else "^".join(_plain(part) for part in (code.scheme, code.value, code.meaning))


def _plain(text: str) -> str:
    """Text without the characters that separate parts in Slicer's tags."""
    return re.sub(r"[~^|\r\n]", " ", text)


def _code_from_text(text: str) -> Code | None:
    parts = text.split("^")
    if len(parts) != 3 or not parts[0] or not parts[1]:
        return None
    return Code(*parts)


def _words(name: str) -> tuple[str, ...]:
    """The words of a name in lower case, sorted; words end where case or kind of character changes."""
    separated = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return tuple(sorted(re.findall(r"[^\W_]+", separated.lower())))


@lru_cache(maxsize=1)
def _structures_by_words() -> dict[tuple[str, ...], Structure]:
    return {_words(name): structure for structure in KNOWN_STRUCTURES for name in (structure.name, *structure.synonyms)}
