"""Which side of the body a structure belongs to, and which structures are the two sides of one organ."""

from __future__ import annotations

import re
from collections.abc import Iterable

from HSAMSegmentLib.labels.label_set import Label
from HSAMSegmentLib.labels.structures import LEFT, RIGHT

RIGHT_SIDE, LEFT_SIDE = "right", "left"
_WORDS = {"right": RIGHT_SIDE, "r": RIGHT_SIDE, "left": LEFT_SIDE, "l": LEFT_SIDE}


def side_of(label: Label) -> str:
    """ "right" or "left" by the code, or by the name of a structure without a code; "" for neither.

    Sides inside of one organ, such as the ventricles of the heart, are structures of their own and have none.
    """
    return _organ_and_side(label)[1]


def sided_pairs(labels: Iterable[Label]) -> list[tuple[Label, Label]]:
    """The structures that are one organ on the right and on the left, the right one first."""
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
