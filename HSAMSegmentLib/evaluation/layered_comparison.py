"""Compare two segmentations with layers: structures may overlap, and each layer has its own grid.

These are the segmentations of a scene. The metrics are those of `metrics.compare`: structures in layers without
overlaps are compared together, on the lattice of the second segmentation, cropped to the labeled part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from HSAMSegmentLib.errors import RequestError, VolumeError
from HSAMSegmentLib.evaluation.label_matching import StructurePair
from HSAMSegmentLib.evaluation.metrics import Comparison, LabelScore, compare
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.labels.grids import label_box, part_of_lattice, resample_array, voxel_offset
from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.labels.layered_segmentation import LayeredSegmentation
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.runtime.progress import CancelToken, Progress, ProgressCallback, ignore_progress

MOST_STRUCTURES = 255
ONLY_FIRST, ONLY_SECOND, OTHER_STRUCTURE = 1, 2, 3


@dataclass(frozen=True)
class LayeredComparison:
    """Metrics and disagreement of two segmentations.

    Attributes:
        comparison: scores in the order of the pairs that the second segmentation has.
        worst_ijk: per score, a voxel on `geometry` in its worst slice where the two differ; None without one.
        geometry: grid of `disagreement`.
        disagreement: uint8 (k, j, i): `ONLY_FIRST`, `ONLY_SECOND`, `OTHER_STRUCTURE`, 0 where the two agree.
        not_compared: names of the pairs that only the first segmentation has, with their volumes in mL.
    """

    comparison: Comparison
    worst_ijk: tuple[tuple[int, int, int] | None, ...]
    geometry: Geometry
    disagreement: np.ndarray
    not_compared: tuple[tuple[str, float], ...] = ()


def compare_layered(
    first: LayeredSegmentation,
    second: LayeredSegmentation,
    pairs: Sequence[StructurePair],
    *,
    progress: ProgressCallback = ignore_progress,
    cancel: CancelToken | None = None,
) -> LayeredComparison:
    """Compare a segmentation with a second one, the reference.

    A pair without a first structure counts as missed. One without a second structure is not compared.

    Raises:
        RequestError: if there is nothing to compare.
        VolumeError: if the two are not in the same place.
        CancelledError: on cancel.
    """
    cancel = cancel or CancelToken()
    compared = [pair for pair in pairs if pair.second is not None]
    if not compared:
        raise RequestError("There is nothing to compare: pair at least one structure of the first with the second.")
    progress(Progress(0.0, "Bringing both to one grid"))
    geometry = _common_grid(first, second)
    cancel.raise_if_cancelled()
    sides = (_Side(first, geometry), _Side(second, geometry))
    cancel.raise_if_cancelled()
    groups = _groups(sides, compared)
    scores: dict[StructurePair, LabelScore] = {}
    worst: dict[StructurePair, tuple[int, int, int] | None] = {}
    differs = np.zeros(geometry.shape, dtype=bool)
    for number, group in enumerate(groups):
        share = _shared_progress(progress, number, len(groups))
        result = compare(*group.segmentations(sides, geometry), progress=share, cancel=cancel)
        scores.update(zip(group.pairs, result.scores))
        worst.update(zip(group.pairs, (group.worst_voxel(score, result.slice_axis) for score in result.scores)))
        differs |= group.arrays[0] != group.arrays[1]
    comparison = replace(
        result,
        prediction_name=first.name,
        reference_name=second.name,
        scores=tuple(_with_own_volume(scores[pair], first, pair) for pair in compared),
        notes=_notes(sides),
    )
    return LayeredComparison(
        comparison=comparison,
        worst_ijk=tuple(worst[pair] for pair in compared),
        geometry=geometry,
        disagreement=_disagreement(differs, groups),
        not_compared=tuple((pair.name, _volume_ml(first, pair.first)) for pair in pairs if pair.second is None),
    )


def _shared_progress(progress: ProgressCallback, number: int, count: int) -> ProgressCallback:
    def report(inner: Progress) -> None:
        progress(replace(inner, fraction=(number + inner.fraction) / count, eta_seconds=None))

    return report


def _common_grid(first: LayeredSegmentation, second: LayeredSegmentation) -> Geometry:
    """The part of the second one's lattice that holds all labels, with a margin of one voxel."""
    lattice = next((item for item in (second.grid, *_grids(second), first.grid, *_grids(first)) if item), None)
    boxes = [_labels_of(side, lattice) for side in (first, second)] if lattice is not None else [None, None]
    known = [box for box in boxes if box is not None]
    if lattice is None or not known:
        raise RequestError(f'Neither "{first.name}" nor "{second.name}" has a voxel: there is nothing to compare.')
    if second.grid is not None and boxes[0] is not None and not _touch(boxes[0], second.grid):
        raise VolumeError(
            f'"{first.name}" lies outside of the scan of "{second.name}". Check that both belong to the same scan and '
            "are under the right transforms."
        )
    low = np.min([box[0] for box in known], axis=0) - 1
    high = np.max([box[1] for box in known], axis=0) + 1
    if second.grid is not None:
        flat = np.asarray(second.grid.size) == 1
        low[flat], high[flat] = 0, 1
    return part_of_lattice(lattice, low, high)


def _grids(side: LayeredSegmentation) -> list[Geometry]:
    return [geometry for _, geometry in side.layers]


def _labels_of(side: LayeredSegmentation, lattice: Geometry) -> tuple[np.ndarray, np.ndarray] | None:
    """Bounds (i, j, k) of all labeled voxels on a lattice, upper ones excluded; None if there are none."""
    boxes = [label_box(array, geometry, lattice) for array, geometry in side.layers]
    known = [box for box in boxes if box is not None]
    if not known:
        return None
    return np.min([box[0] for box in known], axis=0), np.max([box[1] for box in known], axis=0)


def _touch(box: tuple[np.ndarray, np.ndarray], grid: Geometry) -> bool:
    return bool(np.all(box[1] > 0) and np.all(box[0] < np.asarray(grid.size)))


class _Side:
    """One segmentation on the common grid: per layer an array of 1 + index of the structure."""

    def __init__(self, segmentation: LayeredSegmentation, geometry: Geometry) -> None:
        if len(segmentation.structures) > MOST_STRUCTURES:
            raise RequestError(
                f'"{segmentation.name}" has {len(segmentation.structures)} structures; {MOST_STRUCTURES} is the most '
                "that can be compared."
            )
        self.name = segmentation.name
        self.structures = segmentation.structures
        self.is_resampled = False
        self._empty = np.zeros(geometry.shape, dtype=np.uint8)
        self._layers = [self._placed(number, *layer, geometry) for number, layer in enumerate(segmentation.layers)]

    def layer_of(self, position: int | None) -> int:
        """Layer index of a structure; -1 if it has no voxels."""
        layer = None if position is None else self.structures[position].layer
        return -1 if layer is None else layer

    def array(self, layer: int) -> np.ndarray:
        """A layer; an empty one for -1."""
        return self._empty if layer < 0 else self._layers[layer]

    def _placed(self, number: int, array: np.ndarray, source: Geometry, target: Geometry) -> np.ndarray:
        numbers = self._numbered(number, array)
        offset = voxel_offset(source, target)
        if offset is None:
            self.is_resampled = True
            return resample_array(numbers, source, target)
        placed = np.zeros(target.shape, dtype=np.uint8)
        into, out_of = [], []
        for start, length, room in zip(offset[::-1], source.shape, target.shape):
            into.append(slice(max(0, start), max(0, min(room, start + length))))
            out_of.append(slice(into[-1].start - start, max(into[-1].start, into[-1].stop) - start))
        placed[tuple(into)] = numbers[tuple(out_of)]
        return placed

    def _numbered(self, number: int, array: np.ndarray) -> np.ndarray:
        own = [(position, item) for position, item in enumerate(self.structures, 1) if item.layer == number]
        table = np.zeros(max(int(array.max(initial=0)), *(item.value for _, item in own), 0) + 1, dtype=np.uint8)
        for position, item in own:
            table[item.value] = position
        result: np.ndarray = table[np.maximum(array, 0)]
        return result


class _Group:
    """Pairs whose structures lie on the same two layers."""

    def __init__(self, sides: tuple[_Side, _Side], layers: tuple[int, int], pairs: list[StructurePair]) -> None:
        self.pairs = pairs
        self.arrays = tuple(self._numbered(sides[side], side, layers[side]) for side in (0, 1))

    def _numbered(self, side: _Side, which: int, layer: int) -> np.ndarray:
        """The layer with pair numbers as values."""
        table = np.zeros(MOST_STRUCTURES + 1, dtype=np.uint8)
        for number, pair in enumerate(self.pairs, start=1):
            position = (pair.first, pair.second)[which]
            if position is not None:
                table[position + 1] = number
        array: np.ndarray = table[side.array(layer)]
        return array

    def segmentations(self, sides: tuple[_Side, _Side], geometry: Geometry) -> tuple[Segmentation, Segmentation]:
        """Both segmentations for `metrics.compare`; values and names of a pair are the same on both sides."""
        labels = [
            (pair, Label(number, f"Pair{number}x", (1.0, 1.0, 1.0))) for number, pair in enumerate(self.pairs, start=1)
        ]
        ours = LabelSet(tuple(label for pair, label in labels if pair.first is not None))
        theirs = LabelSet(tuple(label for _, label in labels))
        return (
            Segmentation(self.arrays[0], geometry, ours, sides[0].name),
            Segmentation(self.arrays[1], geometry, theirs, sides[1].name),
        )

    def worst_voxel(self, score: LabelScore, axis: int) -> tuple[int, int, int] | None:
        """A voxel (i, j, k) amid the difference in the worst slice; amid the structure if there is none."""
        if score.worst_slice is None:
            return None
        ours, theirs = (np.take(array, score.worst_slice, axis) == score.reference_value for array in self.arrays)
        differing = np.argwhere(ours != theirs)
        places = differing if differing.size else np.argwhere(theirs)
        middle = places[np.argmin(np.abs(places - places.mean(axis=0)).sum(axis=1))]
        kji = np.insert(middle, axis, score.worst_slice)
        return (int(kji[2]), int(kji[1]), int(kji[0]))


def _groups(sides: tuple[_Side, _Side], pairs: list[StructurePair]) -> list[_Group]:
    """Group pairs by their layers; structures without voxels join any group."""
    by_layers: dict[tuple[int, int], list[StructurePair]] = {}
    for pair in pairs:
        layers = (sides[0].layer_of(pair.first), sides[1].layer_of(pair.second))
        by_layers.setdefault(layers, []).append(pair)
    return [_Group(sides, layers, members) for layers, members in by_layers.items()]


def _with_own_volume(score: LabelScore, first: LayeredSegmentation, pair: StructurePair) -> LabelScore:
    """The score under the pair's name, with the first one's volume measured on its own grid."""
    return replace(score, name=pair.name, prediction_ml=_volume_ml(first, pair.first))


def _volume_ml(side: LayeredSegmentation, position: int | None) -> float:
    structure = None if position is None else side.structures[position]
    if structure is None or structure.layer is None:
        return 0.0
    array, geometry = side.layers[structure.layer]
    return float(np.count_nonzero(array == structure.value)) * geometry.voxel_volume_ml


def _disagreement(differs: np.ndarray, groups: list[_Group]) -> np.ndarray:
    in_first, in_second = (np.any([group.arrays[side] > 0 for group in groups], axis=0) for side in (0, 1))
    result = np.zeros(differs.shape, dtype=np.uint8)
    result[differs & in_first & ~in_second] = ONLY_FIRST
    result[differs & in_second & ~in_first] = ONLY_SECOND
    result[differs & in_first & in_second] = OTHER_STRUCTURE
    return result


def _notes(sides: tuple[_Side, _Side]) -> tuple[str, ...]:
    first, second = sides
    notes = []
    if first.is_resampled:
        notes.append(
            f'"{first.name}" has another grid than "{second.name}": for Dice and distances it was brought to it by '
            "nearest neighbor; volumes are those of its own grid."
        )
    if second.is_resampled:
        notes.append(f'Parts of "{second.name}" have different grids and were brought to one by nearest neighbor.')
    return tuple(notes)
