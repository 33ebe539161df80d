"""A crop around the labels, for most training batches.

A step on the crop costs a fraction of one on whole slices. Whole slices are still shown now and then, so that the
network also learns what is not an organ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from HSAMSegmentLib.training.data.cases import UNLABELED
from HSAMSegmentLib.training.data.slice_bank import SliceBank

WHOLE_SLICE_SHARE = 0.25
_MARGIN = 1.3
_STEP = 32
_LEAST = 96


@dataclass(frozen=True)
class LabelCrop:
    """The crop.

    Attributes:
        size: rows and columns, multiples of 32 and at most the input's.
        centers_px: for each bank, the center (column, row) of its labels in the input.
    """

    size: tuple[int, int]
    centers_px: tuple[tuple[float, float], ...]


def find_label_crop(banks: Sequence[SliceBank], image_size: int) -> LabelCrop | None:
    """The crop that holds the labels of every bank, with a margin.

    Args:
        banks: the training cases.
        image_size: side S of the network's input.

    Returns:
        None if the labels take up the whole input, if there are none, or if a slice is more than one input.
    """
    if any(bank.tile_count > 1 for bank in banks):
        return None
    boxes = [label_box(bank.labels[:, 0]) for bank in banks]
    known = [box for box in boxes if box is not None]
    if not known:
        return None
    rows, columns = (_crop_length(max(box[axis][1] - box[axis][0] for box in known), image_size) for axis in (0, 1))
    size = (rows, columns)
    if size == (image_size, image_size):
        return None
    middle = (image_size - 1) / 2
    centers = [((middle, middle) if box is None else (sum(box[1]) / 2, sum(box[0]) / 2)) for box in boxes]
    return LabelCrop(size, tuple(centers))


def label_box(labels: Tensor) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """First and last row and column with a label in any of the slices [n, S, S], None without labels."""
    drawn = ((labels != 0) & (labels != UNLABELED)).any(dim=0)
    if not drawn.any():
        return None
    rows, cols = (torch.nonzero(drawn.any(dim=axis)).flatten() for axis in (1, 0))
    return (int(rows[0]), int(rows[-1])), (int(cols[0]), int(cols[-1]))


def _crop_length(extent: int, image_size: int) -> int:
    wanted = _STEP * math.ceil(max(_MARGIN * (extent + 1), _LEAST) / _STEP)
    return min(wanted, image_size)
