"""Names, colors and terminology codes of what is segmented."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Code:
    """One coded concept, for example ("SCT", "10200004", "Liver")."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Terminology:
    """What a structure is, in DICOM's segment terms.

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
        value: its value in the label map, 1 to 255; 0 is the background.
        name: as a user reads it.
        color: red, green, blue, each 0 to 1.
        terminology: its code, or None if nobody gave one.
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
        """Read what `to_json` wrote."""
        return cls(tuple(_label_from_json(item) for item in data))


def _code_from_json(data: dict[str, str] | None) -> Code | None:
    return None if data is None else Code(**data)


def _label_from_json(item: dict[str, Any]) -> Label:
    terms = item.get("terminology")
    terminology = None
    if terms is not None:
        terminology = Terminology(
            category=Code(**terms["category"]),
            type=Code(**terms["type"]),
            modifier=_code_from_json(terms.get("modifier")),
        )
    return Label(
        value=int(item["value"]),
        name=str(item["name"]),
        color=tuple(float(part) for part in item["color"]),
        terminology=terminology,
        single_piece=bool(item.get("single_piece", True)),
    )
