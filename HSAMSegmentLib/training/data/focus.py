"""Where in the slices the labels are, so that most training views need not show the empty rest.

A step on the labelled region alone costs a fraction of one on whole slices; the rest of the slice is shown often enough
that it is not taken for an organ later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from HSAMSegmentLib.training.data.slice_bank import SliceBank
from HSAMSegmentLib.training.loop.losses import UNLABELLED

WHOLE_VIEW_SHARE = 0.25
_MARGIN = 1.3
_STEP = 32
_LEAST = 96


@dataclass(frozen=True)
class Focus:
    """The window of the views.

    Attributes:
        size: rows and columns, multiples of 32 and at most the input's.
        centers_px: for each bank the center (column, row) of its labels in the input.
    """

    size: tuple[int, int]
    centers_px: tuple[tuple[float, float], ...]


def find_focus(banks: Sequence[SliceBank], image_size: int) -> Focus | None:
    """A window that holds the labels of every bank, with a margin.

    Args:
        banks: the training cases.
        image_size: side S of the network's input.

    Returns:
        None if the labels take up the whole input, if there are none, or if a slice is more than one input.
    """
    if any(bank.tile_count > 1 for bank in banks):
        return None
    boxes = [_box(bank.labels[:, 0]) for bank in banks]
    known = [box for box in boxes if box is not None]
    if not known:
        return None
    size = tuple(_window(max(box[axis][1] - box[axis][0] for box in known), image_size) for axis in (0, 1))
    if size == (image_size, image_size):
        return None
    middle = (image_size - 1) / 2
    centers = [((middle, middle) if box is None else (sum(box[1]) / 2, sum(box[0]) / 2)) for box in boxes]
    return Focus(size, tuple(centers))


def _box(labels: Tensor) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """First and last row and column that hold a label in any slice [n, S, S]."""
    drawn = ((labels != 0) & (labels != UNLABELLED)).any(dim=0)
    if not drawn.any():
        return None
    rows, cols = (torch.nonzero(drawn.any(dim=axis)).flatten() for axis in (1, 0))
    return (int(rows[0]), int(rows[-1])), (int(cols[0]), int(cols[-1]))


def _window(extent: int, image_size: int) -> int:
    wanted = _STEP * math.ceil(max(_MARGIN * (extent + 1), _LEAST) / _STEP)
    return min(wanted, image_size)
