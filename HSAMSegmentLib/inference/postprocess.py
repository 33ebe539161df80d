"""Post-process a label map in place: one component per organ, no holes, no specks. Works on label bounding boxes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from HSAMSegmentLib.inference.options import PostprocessOptions
from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.runtime.progress import CancelToken

_TOUCHING = np.ones((3, 3, 3), dtype=bool)
"""Components are connected by corners (26 neighbors); the background around holes by faces."""

_NOTABLE_PART = 0.1
"""Dropping more than this fraction of a label triggers a warning."""


@dataclass(frozen=True)
class LabelChange:
    """What post-processing changed in one label.

    Attributes:
        label: the label.
        before: voxel count before.
        dropped_pieces: number of components turned into background.
        dropped: their voxel count.
        filled: background voxels that became the label.
    """

    label: Label
    before: int
    dropped_pieces: int = 0
    dropped: int = 0
    filled: int = 0


def postprocess(
    labels: np.ndarray,
    label_set: LabelSet,
    *,
    voxel_volume_ml: float,
    options: PostprocessOptions,
    cancel: CancelToken | None = None,
) -> tuple[LabelChange, ...]:
    """Post-process a label map in place.

    Components of all labels are dropped before holes are filled, so that the hole left by a dropped speck inside
    another organ closes. Holes are 3-D: filling slice by slice would close rings, such as the left ventricular
    myocardium around its cavity. Filling changes background only; no label loses a voxel to another.

    Args:
        labels: uint8 label map with three axes, changed in place.
        label_set: its labels; other values are left alone.
        voxel_volume_ml: volume of a voxel.
        options: steps to apply.
        cancel: checked between labels.

    Returns:
        The changes, one entry per label.

    Raises:
        CancelledError: on cancel.
    """
    boxes = ndimage.find_objects(labels, max_label=max((label.value for label in label_set), default=0))
    changes = []
    for label in label_set:
        _check(cancel)
        changes.append(_drop_pieces(labels, boxes[label.value - 1], label, voxel_volume_ml, options))
    if options.fill_holes:
        filled = []
        for change in changes:
            _check(cancel)
            filled.append(_fill(labels, boxes[change.label.value - 1], change))
        changes = filled
    return tuple(changes)


def change_warnings(changes: tuple[LabelChange, ...], voxel_volume_ml: float) -> tuple[str, ...]:
    """Return warnings for labels that lost more than a tenth of their voxels."""
    sentences = []
    for change in changes:
        if change.dropped <= _NOTABLE_PART * change.before:
            continue
        volume = change.dropped * voxel_volume_ml
        pieces = "a separate piece" if change.dropped_pieces == 1 else f"{change.dropped_pieces} separate pieces"
        sentences.append(
            f"{change.label.name}: {pieces} of together {volume:.1f} mL, "
            f"{100.0 * change.dropped / change.before:.0f} % of what was found, became background. "
            "Turn off 'largest piece' and the smallest volume to keep them."
        )
    return tuple(sentences)


def keep_values(labels: np.ndarray, wanted: Collection[int]) -> None:
    """Set all unwanted values to background, in place and plane by plane.

    Call it after `postprocess`, which would otherwise fill an unwanted label inside another one like a hole.

    Args:
        labels: uint8 label map with three axes.
        wanted: values to keep.
    """
    table = np.zeros(256, dtype=np.uint8)
    table[list(wanted)] = list(wanted)
    for plane in labels:
        plane[...] = table[plane]


def count_values(values: np.ndarray, size: int) -> np.ndarray:
    """Count the values 0..size - 1 into int64 [size], without an integer copy of the whole array."""
    counts = np.zeros(size, dtype=np.int64)
    for plane in values:
        counts += np.bincount(plane.ravel(), minlength=size)
    return counts


def _drop_pieces(
    labels: np.ndarray, box: tuple[slice, ...] | None, label: Label, voxel_ml: float, options: PostprocessOptions
) -> LabelChange:
    if box is None:
        return LabelChange(label, before=0)
    crop = labels[box]
    mask = crop == label.value
    before = int(np.count_nonzero(mask))
    only_largest = options.largest_piece and label.single_piece
    if not only_largest and options.minimum_ml == 0.0:
        return LabelChange(label, before)
    pieces, count = ndimage.label(mask, structure=_TOUCHING)
    sizes = count_values(pieces, count + 1)
    drop = sizes * voxel_ml < options.minimum_ml
    if only_largest:
        drop[np.arange(count + 1) != 1 + np.argmax(sizes[1:])] = True
    drop[0] = False
    if drop.any():
        _assign(crop, pieces, drop, 0)
    return LabelChange(label, before, int(drop.sum()), int(sizes[drop].sum()))


def _fill(labels: np.ndarray, box: tuple[slice, ...] | None, change: LabelChange) -> LabelChange:
    """Fill holes: connected parts of the complement that do not reach the faces of the bounding box.

    An axis with a single slice in the whole volume has no outside, so a one-slice volume is filled in-plane.
    """
    if box is None:
        return change
    crop = labels[box]
    outside, count = ndimage.label(crop != change.label.value)
    hole = np.ones(count + 1, dtype=bool)
    hole[0] = False
    for axis in range(3):
        if labels.shape[axis] > 1:
            hole[np.unique(outside.take((0, -1), axis=axis))] = False
    if not hole.any():
        return change
    filled = _assign(crop, outside, hole, change.label.value, only_background=True)
    return LabelChange(change.label, change.before, change.dropped_pieces, change.dropped, filled)


def _assign(crop: np.ndarray, pieces: np.ndarray, chosen: np.ndarray, value: int, only_background: bool = False) -> int:
    """Write `value` where `chosen[pieces]`, plane by plane to keep masks small; return the voxel count."""
    count = 0
    for plane, piece_plane in zip(crop, pieces):
        where = chosen[piece_plane]
        if only_background:
            where &= plane == 0
        plane[where] = value
        count += int(np.count_nonzero(where))
    return count


def _check(cancel: CancelToken | None) -> None:
    if cancel is not None:
        cancel.raise_if_cancelled()
