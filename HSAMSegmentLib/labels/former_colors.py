"""The colors that known structures had before they got their own: those of Slicer's anatomy list.

Models keep the colors of their labels. A label with the former color of its structure, which was a default, gets the
present one, so that every view, table and picture shows the same. A color that a user chose stays.
"""

from __future__ import annotations

import math
from dataclasses import replace

from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.labels.terminology import fallback_color, find_structure

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


def with_present_colors(labels: LabelSet) -> LabelSet:
    """The same labels; those with the former color of their structure have its present one."""
    return LabelSet(tuple(_with_present_color(label) for label in labels))


def _with_present_color(label: Label) -> Label:
    structure = find_structure(label.name)
    if structure is None:
        return label
    name = structure.name
    for side in _SIDES:
        name = name if name in _FORMER else name.removeprefix(side)
    former = tuple(part / 255.0 for part in _FORMER.get(name, (0, 0, 0)))
    given = (former, fallback_color(label.value))  # the latter where the structure was not known by this name
    is_default = any(math.dist(color, label.color) < _ALIKE for color in given)
    return replace(label, color=structure.color) if is_default else label
