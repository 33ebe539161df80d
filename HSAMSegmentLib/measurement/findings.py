"""Unusual findings about the structures of a scan: worth a look, not necessarily wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from HSAMSegmentLib.labels.label_set import Label
from HSAMSegmentLib.labels.terminology import sided_pairs
from HSAMSegmentLib.measurement.statistics import StructureStatistics

MISSING, PARTS, SIDES, RANGE, CONFIDENCE, BORDER = "missing", "parts", "sides", "range", "confidence", "border"
LOW_CONFIDENCE = 0.5
_MOST_OUTSIDE = 0.02
"""Fraction of a one-piece organ that may be detached from it."""
_RIGHT_OF = (("SCT:10200004", "SCT:78961009"),)
"""Codes of two organs, the first of which lies right of the second: liver and spleen."""


def readable_number(value: float) -> str:
    """Format with three significant digits, without an exponent: 1480, 63.5, 0.82, 0.0042."""
    if abs(value) >= 100.0:
        return f"{value:.0f}"
    if abs(value) >= 10.0:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


@dataclass(frozen=True)
class Finding:
    """One unusual finding.

    Attributes:
        kind: `MISSING`, `PARTS`, `SIDES`, `RANGE`, `CONFIDENCE` or `BORDER`.
        structure: name of the structure.
        text: the finding, without the name of the structure.
    """

    kind: str
    structure: str
    text: str


def find_unusual(
    labels: Iterable[Label],
    statistics: Sequence[StructureStatistics],
    ranges_ml: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[Finding, ...]:
    """Find what is unusual about the structures of a scan, in their order.

    Args:
        labels: the structures.
        statistics: their statistics.
        ranges_ml: lowest and highest volume in the model's training scans, by structure name.
    """
    by_name = {item.structure: item for item in statistics}
    known = [(label, by_name[label.name]) for label in labels if label.name in by_name]
    exchanged = _exchanged(known)
    found: list[Finding] = []
    for label, item in known:
        if not item.found:
            found.append(Finding(MISSING, label.name, "was not found"))
            continue
        usual = (ranges_ml or {}).get(label.name)
        found += [
            Finding(kind, label.name, text)
            for kind, text in (
                (SIDES, exchanged.get(label.name, "")),
                (RANGE, _out_of_range(item, usual)),
                (PARTS, _pieces(label, item)),
                (CONFIDENCE, _doubt(item)),
                (BORDER, "reaches the border of the scan and may be cut off" if item.touches_border else ""),
            )
            if text
        ]
    return tuple(found)


def _exchanged(known: Sequence[tuple[Label, StructureStatistics]]) -> dict[str, str]:
    """A sentence per structure that lies on the wrong side of its partner."""
    by_name = {label.name: item for label, item in known}
    pairs = [(right.name, left.name) for right, left in sided_pairs(label for label, _ in known)]
    for right_code, left_code in _RIGHT_OF:
        rights, lefts = ([item.structure for _, item in known if item.code == code] for code in (right_code, left_code))
        pairs += list(zip(rights[:1], lefts[:1]))
    sentences: dict[str, str] = {}
    for right, left in pairs:
        first, second = by_name[right].centroid_r_mm, by_name[left].centroid_r_mm
        if first is not None and second is not None and first < second:
            sentences[right] = f"lies left of {left}"
            sentences[left] = f"lies right of {right}"
    return sentences


def _out_of_range(item: StructureStatistics, usual: tuple[float, float] | None) -> str:
    """Check the volume range; a structure at the border of the scan may be cut off, so it is never too small."""
    if usual is None:
        return ""
    low, high = usual
    if item.volume_ml > high or (item.volume_ml < low and not item.touches_border):
        usual_ml = f"{readable_number(low)} to {readable_number(high)} mL in the training scans"
        return f"has {readable_number(item.volume_ml)} mL, {usual_ml}"
    return ""


def _pieces(label: Label, item: StructureStatistics) -> str:
    if not label.single_piece or item.parts < 2 or (item.largest_part or 0.0) >= 1.0 - _MOST_OUTSIDE:
        return ""
    return f"is in {item.parts} pieces"


def _doubt(item: StructureStatistics) -> str:
    if item.confidence is None or item.confidence >= LOW_CONFIDENCE:
        return ""
    return f"has a confidence of {100 * item.confidence:.0f} %"
