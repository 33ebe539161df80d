"""Names, colors and terminology codes of segmented structures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

LARGEST_VALUE = 255
_GENERIC_NAME = re.compile(r"(label|segment|class|structure)?\s*\d*")


@dataclass(frozen=True)
class Code:
    """One coded concept, for example ("SCT", "10200004", "Liver")."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Terminology:
    """The identity of a structure, in DICOM's segment terms.

    Attributes:
        category: usually (SCT, 123037004, Anatomical Structure).
        type: the structure.
        modifier: its side, or None.
    """

    category: Code
    type: Code
    modifier: Code | None = None


@dataclass(frozen=True)
class Label:
    """One structure of a label map.

    Attributes:
        value: value in the label map, 1 to 255; 0 is the background.
        name: display name.
        color: red, green, blue, each 0 to 1.
        terminology: its code, or None.
        single_piece: whether the organ is one connected piece, so that stray islands may be dropped.
    """

    value: int
    name: str
    color: tuple[float, float, float]
    terminology: Terminology | None = None
    single_piece: bool = True


@dataclass(frozen=True)
class LabelSet:
    """The labels of a model or of a segmentation, values ascending, names unique."""

    labels: tuple[Label, ...]

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def by_value(self, value: int) -> Label:
        """The label with this value; KeyError if there is none."""
        for label in self.labels:
            if label.value == value:
                return label
        raise KeyError(value)

    def to_json(self) -> list[dict[str, Any]]:
        """Plain JSON values, complete enough for `from_json`."""
        return [asdict(label) for label in self.labels]

    @classmethod
    def from_json(cls, data: list[dict[str, Any]]) -> LabelSet:
        """Read what `to_json` wrote.

        Raises:
            ValueError: stating the reason, if a value is not an integer from 1 to 255, values do not ascend, a name is
                empty or occurs twice, or a color or code is invalid.
            KeyError, TypeError: if the data has another structure.
        """
        labels = tuple(_label_from_json(item) for item in data)
        values = [label.value for label in labels]
        if values != sorted(set(values)):
            raise ValueError(f"the values of the labels are {values}; they must differ and ascend")
        names = [label.name.strip() for label in labels]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f'more than one label is called "{doubled[0]}"')
        return cls(labels)


def _code_from_json(data: dict[str, str] | None) -> Code | None:
    if data is None:
        return None
    code = Code(**data)
    if not all(isinstance(part, str) for part in (code.scheme, code.value, code.meaning)):
        raise ValueError(f"{data} is not a code: scheme, value and meaning are texts")
    return code


def _label_from_json(item: dict[str, Any]) -> Label:
    if not isinstance(item, dict):
        raise TypeError(f"{item!r} is not a label")
    terms = item.get("terminology")
    terminology = None
    if terms is not None:
        category, kind = _code_from_json(terms["category"]), _code_from_json(terms["type"])
        if category is None or kind is None:
            raise ValueError(f'the terminology of label "{item["name"]}" has no category or no type')
        terminology = Terminology(category, kind, _code_from_json(terms.get("modifier")))
    return Label(
        value=_value_from_json(item["value"]),
        name=_name_from_json(item["name"]),
        color=_color_from_json(item["color"]),
        terminology=terminology,
        single_piece=bool(item.get("single_piece", True)),
    )


def is_generic_name(name: str) -> bool:
    """Whether a name is nothing but a number ("Label 3", "Segment_3", "3")."""
    words = " ".join(re.findall(r"[^\W\d_]+|\d+", name.casefold()))
    return _GENERIC_NAME.fullmatch(words) is not None


def _value_from_json(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST_VALUE:
        raise ValueError(f"{value!r} is not a value of a label; these are whole numbers from 1 to {LARGEST_VALUE}")
    return value


def _name_from_json(name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{name!r} is not a name of a label")
    return name


def _color_from_json(color: Any) -> tuple[float, float, float]:
    parts = tuple(float(part) for part in color)
    if len(parts) != 3 or not all(0.0 <= part <= 1.0 for part in parts):
        raise ValueError(f"{color!r} is not a color; these are red, green and blue, each 0 to 1")
    return parts
