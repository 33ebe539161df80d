"""Map names to labels with colors, codes and sides, and convert codes to and from Slicer's text form.

A name matches a known structure only if its words are exactly those of one of its names, in any order: "Left kidney",
"kidney_left" and "KidneyLeft" match; "left kidney tumor", "LK" and "kidney 1" do not, and get no code.

Models keep the colors of their labels. A label with the former default color of its structure (that of Slicer's anatomy
list) gets the current one; a color that a user chose is kept.
"""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

from HSAMSegmentLib.labels.label_set import Code, Label, LabelSet, Terminology
from HSAMSegmentLib.labels.structures import KNOWN_STRUCTURES, LEFT, RIGHT, Structure
from HSAMSegmentLib.runtime.serialization import triple

CATEGORY_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
ANATOMIC_CONTEXT = "Anatomic codes - DICOM master list"
_NO_CODE = "^^"
_GOLDEN_RATIO = 0.618033988749895

_ALIKE = 0.01
_SIDES = ("right ", "left ")
_FORMER = {
    "liver": (221, 130, 101),
    "spleen": (157, 108, 162),
    "kidney": (185, 102, 83),
    "gallbladder": (139, 150, 98),
    "stomach": (216, 132, 105),
    "aorta": (224, 97, 76),
    "pancreas": (249, 180, 111),
    "esophagus": (211, 171, 143),
    "duodenum": (255, 253, 229),
    "small intestine": (205, 167, 142),
    "colon": (204, 168, 143),
    "adrenal gland": (249, 186, 150),
    "inferior vena cava": (0, 151, 206),
    "portal vein": (0, 122, 171),
    "bladder": (222, 154, 132),
    "prostate": (230, 158, 140),
    "uterus": (255, 181, 158),
    "heart": (206, 110, 84),
    "left ventricular myocardium": (236, 200, 110),
    "left ventricle": (152, 55, 13),
    "right ventricle": (181, 85, 57),
    "left atrium": (203, 108, 81),
    "right atrium": (210, 115, 89),
    "lung": (197, 165, 145),
    "trachea": (182, 228, 255),
    "brain": (250, 250, 225),
    "spinal cord": (244, 214, 49),
    "thyroid": (62, 162, 114),
    "femur": (241, 214, 145),
}
"""Red, green and blue, 0 to 255; both sides of a pair had the same."""

RIGHT_SIDE, LEFT_SIDE = "right", "left"
_WORDS = {"right": RIGHT_SIDE, "r": RIGHT_SIDE, "left": LEFT_SIDE, "l": LEFT_SIDE}


def find_structure(name: str) -> Structure | None:
    """The known structure that a name stands for, or None if that is uncertain."""
    return _structures_by_words().get(_words(name))


def label_for(value: int, name: str) -> Label:
    """A label with this name, and the color and code of the known structure that it stands for, if any."""
    structure = find_structure(name)
    if structure is None:
        return Label(value, name, fallback_color(value), None, single_piece=False)
    return Label(value, name, structure.color, structure.terminology, structure.single_piece)


def label_set_of(names: Mapping[int, str]) -> LabelSet:
    """Labels for values and names, ascending; repeated names get their value appended."""
    labels: list[Label] = []
    for value in sorted(names):
        name = unique_name(names[value].strip() or f"Label {value}", [label.name for label in labels], value)
        labels.append(label_for(value, name))
    return LabelSet(tuple(labels))


def unique_name(name: str, taken: Iterable[str], value: int) -> str:
    """The name, with the value appended if it is already taken."""
    taken = set(taken)
    candidate = name
    while candidate in taken:
        candidate = f"{candidate} ({value})"
    return candidate


def fallback_color(value: int) -> tuple[float, float, float]:
    """A reproducible color for an unknown structure, different for neighboring values."""
    hue = (0.55 + value * _GOLDEN_RATIO) % 1.0
    saturation = (0.75, 0.5, 0.95)[value % 3]
    brightness = (0.95, 0.8)[value // 3 % 2]
    return triple(round(part, 6) for part in colorsys.hsv_to_rgb(hue, saturation, brightness))


def terminology_tag(terminology: Terminology) -> str:
    """Slicer's text for a code: seven parts separated by "~"; the anatomic region stays empty."""
    codes = [terminology.category, terminology.type, terminology.modifier]
    return "~".join([CATEGORY_CONTEXT, *(_code_text(code) for code in codes), ANATOMIC_CONTEXT, _NO_CODE, _NO_CODE])


def terminology_from_tag(text: str) -> Terminology | None:
    """Parse Slicer's text for a code; None without a category or a type."""
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
    """Text without the separators of Slicer's tags."""
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


def with_present_colors(labels: LabelSet) -> LabelSet:
    """The same labels, with former default colors replaced by current ones."""
    return LabelSet(tuple(_with_present_color(label) for label in labels))


def _with_present_color(label: Label) -> Label:
    structure = find_structure(label.name)
    if structure is None:
        return label
    name = structure.name
    for side in _SIDES:
        name = name if name in _FORMER else name.removeprefix(side)
    former = tuple(part / 255.0 for part in _FORMER.get(name, (0, 0, 0)))
    given = (former, fallback_color(label.value))  # the latter if the structure was unknown under this name
    is_default = any(math.dist(color, label.color) < _ALIKE for color in given)
    return replace(label, color=structure.color) if is_default else label


def side_of(label: Label) -> str:
    """ "right" or "left" by the code, or by the name of a structure without a code; "" for neither.

    Sides within one organ, such as the ventricles of the heart, are structures of their own and have none.
    """
    return _organ_and_side(label)[1]


def sided_pairs(labels: Iterable[Label]) -> list[tuple[Label, Label]]:
    """The structures that are the right and left of one organ, the right one first."""
    sides: dict[tuple[str, ...], dict[str, Label]] = {}
    for label in labels:
        organ, side = _organ_and_side(label)
        if side:
            sides.setdefault(organ, {}).setdefault(side, label)
    return [(both[RIGHT_SIDE], both[LEFT_SIDE]) for both in sides.values() if len(both) == 2]


def _organ_and_side(label: Label) -> tuple[tuple[str, ...], str]:
    terms = label.terminology
    if terms is not None:
        modifier = terms.modifier.value if terms.modifier is not None else ""
        side = {RIGHT.value: RIGHT_SIDE, LEFT.value: LEFT_SIDE}.get(modifier, "")
        return ("code", terms.type.scheme, terms.type.value), side
    words = re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label.name).lower())
    said = [_WORDS[word] for word in words if word in _WORDS]
    rest = [word for word in words if word not in _WORDS]
    return ("name", *rest), said[0] if len(said) == 1 and rest else ""
