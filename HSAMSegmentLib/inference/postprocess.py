"""Tidy a label map: one piece per organ, no holes, no specks. Works in place, on each label's bounding box."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from HSAMSegmentLib.inference.options import PostprocessOptions
from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.runtime.progress import CancelToken

_TOUCHING = np.ones((3, 3, 3), dtype=bool)
"""Voxels of one piece share at least a corner; what separates a hole from the outside shares faces."""

_NOTABLE_PART = 0.1
"""A removed part of a label above which the user is told."""


@dataclass(frozen=True)
class LabelChange:
    """What tidying did to one label.

    Attributes:
        label: the label.
        before: its voxels before.
        dropped_pieces: pieces that became background.
        dropped: their voxels.
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
    """Tidy a label map in place.

    First pieces are dropped, for all labels, then holes are filled, so that a dropped speck of one organ inside of
    another one closes. Holes are sought in 3-D only: filling slice by slice would close rings, such as the muscle of
    the left ventricle around its cavity. Filling changes background only; no label ever loses a voxel to another one.

    Args:
        labels: uint8 label map of three axes, changed in place.
        label_set: its labels; other values are left alone.
        voxel_volume_ml: volume of a voxel.
        options: what to do.
        cancel: looked at between two labels.

    Returns:
        What was changed, one entry per label.

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
    """Sentences on labels of which more than a tenth was dropped."""
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
    """Make every value that is not wanted background, in place and plane by plane.

    To be done after `postprocess`: an unwanted label that others enclose would be filled like a hole otherwise.

    Args:
        labels: uint8 label map of three axes.
        wanted: values to keep.
    """
    table = np.zeros(256, dtype=np.uint8)
    table[list(wanted)] = list(wanted)
    for plane in labels:
        plane[...] = table[plane]


def count_values(values: np.ndarray, size: int) -> np.ndarray:
    """How often each of 0..size - 1 occurs, int64 [size], without an integer copy of the whole array."""
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
    """Holes are connected parts of the rest that do not reach the bounding box's faces.

    An axis with a single slice in the whole volume has no outside, so a one-slice volume is filled in its plane.
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
    """Write `value` where `chosen[pieces]`, plane by plane so that the masks stay small; returns the voxel count."""
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
