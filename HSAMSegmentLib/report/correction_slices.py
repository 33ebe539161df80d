"""Choose the slices whose correction helps a model most: uncertain ones, spaced apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from HSAMSegmentLib.runtime.serialization import triple


@dataclass(frozen=True)
class DoubtfulSlice:
    """One slice.

    Attributes:
        index: index along the slicing axis of the scan.
        position_ijk: a voxel of the least certain organ there.
        organ: the organ with the least certain outline, by doubt times area.
        confidence: confidence of that organ in this slice, 0 to 1.
        doubt: (1 - confidence) times area, summed over the organs, in voxels.
    """

    index: int
    position_ijk: tuple[int, int, int]
    organ: str
    confidence: float
    doubt: float


def slices_to_correct(report: Mapping[str, Any] | None, count: int = 6) -> tuple[DoubtfulSlice, ...]:
    """Choose the slices most worth correcting, in descending order.

    Correcting a slice nearly corrects its neighbors, so slices are spaced such that all of them fit into the range of
    the organs.

    Args:
        report: report of a segmentation (`report.segmentation_report.make_report`).
        count: maximum number of slices.
    """
    slices = _by_slice(report)
    if not slices:
        return ()
    distance = max(1, (max(slices) - min(slices)) // (2 * count))
    chosen: list[DoubtfulSlice] = []
    for candidate in sorted(slices.values(), key=lambda item: -item.doubt):
        if candidate.doubt > 0 and all(abs(candidate.index - other.index) > distance for other in chosen):
            chosen.append(candidate)
        if len(chosen) == count:
            break
    return tuple(chosen)


def _by_slice(report: Mapping[str, Any] | None) -> dict[int, DoubtfulSlice]:
    entries: dict[int, list[tuple[float, str, Mapping[str, Any]]]] = {}
    for label in (report or {}).get("labels", ()):
        for item in label.get("slices", ()):
            doubt = (1.0 - float(item["confidence"])) * int(item["voxels"])
            entries.setdefault(int(item["index"]), []).append((doubt, str(label["name"]), item))
    return {index: _doubtful(index, found) for index, found in entries.items()}


def _doubtful(index: int, found: Sequence[tuple[float, str, Mapping[str, Any]]]) -> DoubtfulSlice:
    _, organ, worst = max(found, key=lambda item: item[0])
    return DoubtfulSlice(
        index=index,
        position_ijk=triple(int(part) for part in worst["position_ijk"]),
        organ=organ,
        confidence=float(worst["confidence"]),
        doubt=sum(doubt for doubt, _, _ in found),
    )
