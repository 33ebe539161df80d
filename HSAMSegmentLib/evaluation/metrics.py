"""Compare two segmentations: Dice, Jaccard, HD95, ASD and volumes per structure, with explicit rules for empty ones.

Surfaces are boundary voxels: voxels of a mask that share a face with a voxel outside it, measured center to center.

Convention "ours" (for patients: millimeters with the true spacing):

* Dice 2 |P and R| / (|P| + |R|), Jaccard |P and R| / |P or R|;
* HD95: the larger of both directed 95th percentiles of the surface distances, in mm; ASD: the mean over the surface
  voxels of both masks, in mm (Metrics Reloaded, Maier-Hein et al., Nature Methods 2024);
* empty in both: "absent", excluded from all means; empty in one ("missed" or "false alarm"): Dice and Jaccard are 0 and
  included in their means; surface distances do not exist, are reported as missing, and are excluded.

Convention "hsam" (to compare with tables in the papers): distances in voxels regardless of the spacing; HD95 is the
95th percentile of the pooled distances of both directions; ASD is from the prediction to the reference only. A
prediction without reference counts as Dice 1 and HD95 0; a structure that the prediction misses, or that is in neither,
as Dice 0 and HD95 0; all are included in the means. Jaccard follows Dice in these cases, and ASD follows HD95.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from HSAMSegmentLib.errors import RequestError, VolumeError
from HSAMSegmentLib.evaluation.label_matching import LabelPair, match_labels, select_pairs
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.orientation import slice_axis
from HSAMSegmentLib.labels.grids import grid_box, label_box, part_of_lattice, resample_array, same_grid
from HSAMSegmentLib.labels.label_set import is_generic_name
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.runtime.progress import CancelToken, ProgressCallback, ProgressTracker, ignore_progress

CONVENTIONS = ("ours", "hsam")
AXIS_NAMES = ("k", "j", "i")
_RECTANGULAR = 1e-6


@dataclass(frozen=True)
class SurfaceDistances:
    """Distance of every surface voxel of one mask to the nearest surface voxel of the other.

    Attributes:
        forward: from each surface voxel of the prediction to the reference's surface, float64 [n].
        backward: from each surface voxel of the reference to the prediction's surface, float64 [m].
    """

    forward: np.ndarray
    backward: np.ndarray

    def hd95(self) -> float:
        """95 % Hausdorff distance: the larger of both directed 95th percentiles (as in MONAI and DeepMind's code)."""
        return float(max(np.percentile(self.forward, 95), np.percentile(self.backward, 95)))

    def pooled_hd95(self) -> float:
        """95th percentile of the pooled distances of both directions, as in the papers' evaluation scripts."""
        return float(np.percentile(np.concatenate((self.forward, self.backward)), 95))

    def asd(self) -> float:
        """Average symmetric surface distance: the mean over all surface voxels of both masks."""
        return float(np.concatenate((self.forward, self.backward)).mean())

    def directed_asd(self) -> float:
        """Mean distance from the prediction's surface voxels to the reference, one-directional."""
        return float(self.forward.mean())


def surface_voxels(mask: np.ndarray, axes: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    """Find the surface of a mask: its voxels that share a face with a voxel outside it.

    Space beyond the edge of the array counts as outside, so an organ cut by the field of view has a surface there.

    Args:
        mask: bool [k, j, i].
        axes: axes along which neighbors are checked; leave out the axis of a single-slice volume, or all of the organ
            would be surface.

    Returns:
        bool [k, j, i], True on the surface.
    """
    inner = mask.copy()
    for axis in axes:
        ahead = np.moveaxis(inner, axis, 0)
        line = np.moveaxis(mask, axis, 0)
        ahead[0] = False
        ahead[-1] = False
        ahead[1:] &= line[:-1]
        ahead[:-1] &= line[1:]
    array: np.ndarray = mask & ~inner
    return array


def distances_between(prediction: np.ndarray, reference: np.ndarray) -> SurfaceDistances:
    """Exact nearest distances between two sets of surface points, in both directions.

    A k-d tree gives the same numbers as a distance transform of the whole box, to rounding, and is several times as
    fast for close surfaces, the usual case.

    Args:
        prediction: float64 [n, 3], n > 0.
        reference: float64 [m, 3], m > 0.
    """
    prediction_tree = cKDTree(prediction, balanced_tree=False)
    reference_tree = cKDTree(reference, balanced_tree=False)
    return SurfaceDistances(
        forward=reference_tree.query(prediction)[0],
        backward=prediction_tree.query(reference)[0],
    )


@dataclass(frozen=True)
class LabelScore:
    """Scores of one structure.

    Attributes:
        name: name of the structure.
        prediction_value: its label value in the prediction; None without such a label.
        reference_value: its label value in the reference; None without such a label.
        state: "both" (found in both), "missed" (in the reference only), "false alarm" (in the prediction only) or
            "absent" (in neither).
        dice: 0 to 1, or None if the convention excludes it.
        jaccard: 0 to 1, or None.
        hd95: 95 % Hausdorff distance in the comparison's unit, or None.
        asd: average surface distance in the comparison's unit, or None.
        prediction_ml: volume in the prediction.
        reference_ml: volume in the reference.
        slice_dice: Dice of each slice along the comparison's slice axis; None if neither has a voxel there.
        worst_slice: index of the slice with the lowest Dice (in a tie, the one with more differing voxels), or None if
            no slice has any.
    """

    name: str
    prediction_value: int | None
    reference_value: int | None
    state: str
    dice: float | None
    jaccard: float | None
    hd95: float | None
    asd: float | None
    prediction_ml: float
    reference_ml: float
    slice_dice: tuple[float | None, ...] = ()
    worst_slice: int | None = None

    @property
    def volume_difference_ml(self) -> float:
        """Prediction minus reference in milliliters."""
        return self.prediction_ml - self.reference_ml

    @property
    def volume_difference_percent(self) -> float | None:
        """Prediction minus reference in percent of the reference, None if the reference is empty."""
        return 100.0 * self.volume_difference_ml / self.reference_ml if self.reference_ml > 0 else None


@dataclass(frozen=True)
class Comparison:
    """All structures of a prediction against a reference.

    Attributes:
        prediction_name: name of the prediction.
        reference_name: name of the reference.
        convention: one of `CONVENTIONS`.
        unit: unit of the surface distances, "mm" or "voxel".
        slice_axis: array axis of `slice_dice`: 0 for k, 1 for j, 2 for i.
        scores: one per structure.
        notes: sentences on what was resampled, missing or not compared.
        first_slice: index of the first entry of `slice_dice` on the reference's own grid; negative if the prediction
            extends beyond the reference.
    """

    prediction_name: str
    reference_name: str
    convention: str
    unit: str
    slice_axis: int
    scores: tuple[LabelScore, ...]
    notes: tuple[str, ...] = ()
    first_slice: int = 0

    def mean(self, metric: str) -> float | None:
        """Mean of "dice", "jaccard", "hd95" or "asd" over the structures with a value; None if there are none."""
        values = self._values(metric)
        return sum(values) / len(values) if values else None

    def counted(self, metric: str) -> int:
        """Number of structures in the mean of this metric."""
        return len(self._values(metric))

    def _values(self, metric: str) -> list[float]:
        values = (getattr(score, metric) for score in self.scores)
        return [value for value in values if value is not None]


def compare(
    prediction: Segmentation,
    reference: Segmentation,
    convention: str = "ours",
    *,
    organs: tuple[str, ...] = (),
    progress: ProgressCallback = ignore_progress,
    cancel: CancelToken | None = None,
) -> Comparison:
    """Compare a prediction with a reference, structure by structure.

    Structures are matched by name, terminology code, or value (see `label_matching.match_labels`). A structure only in
    the reference counts as missed; one only in the prediction is a false alarm if the reference's labels have no names
    (it could have been drawn there), otherwise it is not compared, with a note.

    Args:
        prediction: the segmentation to judge.
        reference: the ground truth; the comparison uses its lattice, over the extents of both.
        convention: "ours" or "hsam", see the module docstring.
        organs: names to compare; empty for all.
        progress: called after each structure.
        cancel: checked before each structure.

    Raises:
        RequestError: if the convention or a name is unknown, or if there is nothing to compare.
        VolumeError: if the two do not overlap in space.
        CancelledError: on cancel.
    """
    if convention not in CONVENTIONS:
        raise RequestError(f"The convention '{convention}' is unknown; it is one of {', '.join(CONVENTIONS)}.")
    pairs, notes = _pairs_to_compare(prediction, reference, organs)
    axis = 2 - slice_axis(reference.geometry)
    prediction, reference, first_slice, grid_notes = _on_common_grid(prediction, reference, axis)
    counts = _SliceCounts.of(prediction.array, reference.array, pairs, axis)
    boxes = (ndimage.find_objects(prediction.array), ndimage.find_objects(reference.array))
    tracker = ProgressTracker(progress, stage="Comparing", steps=len(pairs))
    scores = []
    for index, pair in enumerate(pairs):
        if cancel is not None:
            cancel.raise_if_cancelled()
        distances = _distances(pair, prediction, reference, boxes, convention)
        score = _score(pair, counts, index, distances, reference.geometry.voxel_volume_ml, convention)
        scores.append(_with_slices_from(score, first_slice))
        tracker.advance(detail=pair.name)
    return Comparison(
        prediction_name=prediction.name,
        reference_name=reference.name,
        convention=convention,
        unit="voxel" if convention == "hsam" else "mm",
        slice_axis=axis,
        scores=tuple(scores),
        first_slice=first_slice,
        notes=prediction.notes + reference.notes + grid_notes + notes,
    )


@dataclass(frozen=True)
class _SliceCounts:
    """Voxels per slice and pair: int64 [slices, pairs] in the intersection, in the prediction, in the reference."""

    both: np.ndarray
    prediction: np.ndarray
    reference: np.ndarray

    @classmethod
    def of(cls, prediction: np.ndarray, reference: np.ndarray, pairs: tuple[LabelPair, ...], axis: int) -> _SliceCounts:
        """Count in one pass over the slices, with a small joint histogram per slice."""
        size = len(pairs) + 1
        ours = _index_table([pair.prediction.value if pair.prediction else None for pair in pairs])
        theirs = _index_table([pair.reference.value if pair.reference else None for pair in pairs])
        rows = []
        for index in range(prediction.shape[axis]):
            first = ours[np.take(prediction, index, axis)].ravel()
            second = theirs[np.take(reference, index, axis)].ravel()
            joint = np.bincount(first * size + second, minlength=size * size).reshape(size, size)
            rows.append((np.diagonal(joint), joint.sum(axis=1), joint.sum(axis=0)))
        stacked = np.asarray(rows, dtype=np.int64)[:, :, 1:]
        return cls(both=stacked[:, 0], prediction=stacked[:, 1], reference=stacked[:, 2])


def _index_table(values: list[int | None]) -> np.ndarray:
    """Map label values to 1 + index in `values`; 0 for the background and for labels that are not compared."""
    table = np.zeros(256, dtype=np.intp)
    for position, value in enumerate(values, start=1):
        if value is not None:
            table[value] = position
    return table


def _pairs_to_compare(
    prediction: Segmentation, reference: Segmentation, organs: tuple[str, ...]
) -> tuple[tuple[LabelPair, ...], tuple[str, ...]]:
    pairs = match_labels(prediction.labels, reference.labels)
    if organs:
        pairs = select_pairs(pairs, organs)
    unnamed = all(is_generic_name(label.name) for label in reference.labels)
    compared = tuple(pair for pair in pairs if pair.reference is not None or unnamed or organs)
    ignored = [pair.name for pair in pairs if pair not in compared]
    missing = [pair.name for pair in compared if pair.prediction is None]
    notes = []
    if ignored:
        notes.append(f"Only the prediction has {', '.join(ignored)}: not compared.")
    if missing:
        notes.append(f"The prediction has no label for {', '.join(missing)}: counted as missed.")
    if not compared:
        raise RequestError(
            "There is nothing to compare: prediction and reference have no structure in common "
            f"(prediction: {_names(prediction)}; reference: {_names(reference)})."
        )
    return compared, tuple(notes)


def _names(segmentation: Segmentation) -> str:
    return ", ".join(label.name for label in segmentation.labels) or "none"


def _on_common_grid(
    prediction: Segmentation, reference: Segmentation, axis: int
) -> tuple[Segmentation, Segmentation, int, tuple[str, ...]]:
    """Both on the reference's lattice, extended if the prediction has labels outside the reference.

    Returns:
        The two, the index of the first slice along `axis` (0 unless extended), and notes.

    Raises:
        VolumeError: if the two grids do not overlap in space.
    """
    if same_grid(prediction.geometry, reference.geometry):
        return prediction, reference, 0, ()
    lattice = reference.geometry
    size = np.asarray(lattice.size)
    low, high = grid_box(prediction.geometry, lattice)
    if np.any(high <= 0) or np.any(low >= size):
        raise VolumeError(
            f'"{prediction.name}" and "{reference.name}" do not overlap in space; check that both are of the same scan.'
        )
    box = label_box(prediction.array, prediction.geometry, lattice) or (np.zeros(3, int), size)
    low, high = np.minimum(box[0], 0), np.maximum(box[1], size)
    grid = part_of_lattice(lattice, low, high) if low.any() or (high > size).any() else lattice
    placed = Segmentation(
        resample_array(prediction.array, prediction.geometry, grid),
        grid,
        prediction.labels,
        prediction.name,
        prediction.notes,
    )
    before, after = (np.count_nonzero(item.array) * item.geometry.voxel_volume_ml for item in (prediction, placed))
    notes = [
        "The prediction is on another grid than the reference; it was resampled to it by nearest neighbor "
        f"({before:.1f} mL labeled before, {after:.1f} mL after)."
    ]
    if grid is not lattice:
        notes.append(
            "The prediction goes beyond the grid of the reference; what lies outside counts as false positive."
        )
        reference = replace(reference, array=resample_array(reference.array, lattice, grid), geometry=grid)
    return placed, reference, int(low[2 - axis]), tuple(notes)


def _with_slices_from(score: LabelScore, first_slice: int) -> LabelScore:
    """The score with its worst slice indexed on the reference's own grid."""
    if score.worst_slice is None or first_slice == 0:
        return score
    return replace(score, worst_slice=score.worst_slice + first_slice)


def _distances(
    pair: LabelPair,
    prediction: Segmentation,
    reference: Segmentation,
    boxes: tuple[list[tuple[slice, ...] | None], list[tuple[slice, ...] | None]],
    convention: str,
) -> SurfaceDistances | None:
    """Surface distances of a pair, None if one of the two is empty."""
    geometry = reference.geometry
    to_place = np.eye(3) if convention == "hsam" else _index_to_mm(geometry)
    axes = tuple(axis for axis in range(3) if convention == "hsam" or geometry.shape[axis] > 1)
    sides = ((prediction.array, pair.prediction, boxes[0]), (reference.array, pair.reference, boxes[1]))
    points = []
    for array, label, found in sides:
        box = found[label.value - 1] if label is not None and label.value <= len(found) else None
        if label is None or box is None:
            return None
        surface = surface_voxels(np.equal(array[box], label.value), axes)
        points.append((np.argwhere(surface) + [part.start for part in box]) @ to_place)
    return distances_between(points[0], points[1])


def _index_to_mm(geometry: Geometry) -> np.ndarray:
    """3 x 3 matrix that maps indices (k, j, i) to points with the same distances as in the patient.

    Rectangular grids are not rotated, so their spacing is enough; sheared axes (a tilted gantry, a parent transform)
    keep their angles.
    """
    axes = geometry.direction_matrix
    angles = axes.T @ axes
    if np.allclose(angles, np.eye(3), atol=_RECTANGULAR):
        return np.diag(geometry.spacing_mm[::-1])
    array: np.ndarray = (axes * np.asarray(geometry.spacing_mm)).T[::-1]
    return array


def _score(
    pair: LabelPair,
    counts: _SliceCounts,
    index: int,
    distances: SurfaceDistances | None,
    voxel_ml: float,
    convention: str,
) -> LabelScore:
    both, ours, theirs = (part[:, index] for part in (counts.both, counts.prediction, counts.reference))
    slice_dice = tuple(_ratio(2 * both[n], ours[n] + theirs[n]) for n in range(len(both)))
    state = _state(int(ours.sum()), int(theirs.sum()))
    dice, jaccard, hd95, asd = _overlap_and_distance(both.sum(), ours.sum(), theirs.sum(), distances, convention)
    return LabelScore(
        name=pair.name,
        prediction_value=pair.prediction.value if pair.prediction else None,
        reference_value=pair.reference.value if pair.reference else None,
        state=state,
        dice=dice,
        jaccard=jaccard,
        hd95=hd95,
        asd=asd,
        prediction_ml=float(ours.sum()) * voxel_ml,
        reference_ml=float(theirs.sum()) * voxel_ml,
        slice_dice=slice_dice,
        worst_slice=_worst_slice(slice_dice, ours + theirs - 2 * both),
    )


def _overlap_and_distance(
    both: int, ours: int, theirs: int, distances: SurfaceDistances | None, convention: str
) -> tuple[float | None, float | None, float | None, float | None]:
    """Dice, Jaccard, HD95 and ASD, with the convention's rules for empty structures."""
    if distances is not None:
        overlap = (_ratio(2 * both, ours + theirs), _ratio(both, ours + theirs - both))
        if convention == "hsam":
            return (*overlap, distances.pooled_hd95(), distances.directed_asd())
        return (*overlap, distances.hd95(), distances.asd())
    if convention == "hsam":
        counted = 1.0 if ours else 0.0
        return (counted, counted, 0.0, 0.0)
    return (0.0, 0.0, None, None) if ours or theirs else (None, None, None, None)


def _state(ours: int, theirs: int) -> str:
    if ours and theirs:
        return "both"
    if theirs:
        return "missed"
    return "false alarm" if ours else "absent"


def _ratio(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole else None


def _worst_slice(slice_dice: tuple[float | None, ...], differing: np.ndarray) -> int | None:
    candidates = [index for index, value in enumerate(slice_dice) if value is not None]
    return min(candidates, key=lambda index: (slice_dice[index], -differing[index])) if candidates else None
