"""Closed contours around the labeled pixels of a slice, half a pixel outside of their centers.

A hole is joined to the contour around it by a channel of no width (the keyhole of PS3.3, C.8.8.6.3), so that every
reader of closed planar contours finds the hole. Contours lead through the middle between two pixel centers: rasterized
by pixel centers they give back the same pixels.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

_STRAIGHT = 1e-9


def contours_of(mask: np.ndarray) -> list[np.ndarray]:
    """The contours of a mask.

    Args:
        mask: bool [rows, columns].

    Returns:
        Per connected part (pixels that touch by an edge or a corner may be one) an array [n, 2] of (column, row) in
        pixels, without the first point repeated at the end.
    """
    from contourpy import FillType, contour_generator

    hits = np.argwhere(mask)
    if not len(hits):
        return []
    (top, left), (bottom, right) = hits.min(axis=0), hits.max(axis=0)
    padded = np.pad(mask[top : bottom + 1, left : right + 1], 1).astype(np.float64)
    generator = contour_generator(z=padded, fill_type=FillType.OuterOffset)
    parts, offsets = cast(Any, generator.filled(0.5, np.inf))
    shift = np.array([left - 1.0, top - 1.0])
    return [_with_keyholes(_rings(points, ends)) + shift for points, ends in zip(parts, offsets)]


def _rings(points: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    """The outer ring and the holes, each without points that lie on the line between their neighbors."""
    rings = [points[start : end - 1] for start, end in zip(ends[:-1], ends[1:])]
    return [_without_straight(ring) for ring in rings]


def _without_straight(ring: np.ndarray) -> np.ndarray:
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    array: np.ndarray = ring[np.abs(turn) > _STRAIGHT]
    return array


def _with_keyholes(rings: list[np.ndarray]) -> np.ndarray:
    """One polygon: from the outer ring to each hole, around it, and back on the same way."""
    polygon = rings[0]
    for hole in rings[1:]:
        apart = ((polygon[:, np.newaxis] - hole[np.newaxis]) ** 2).sum(axis=2)
        at, of_hole = np.unravel_index(int(apart.argmin()), apart.shape)
        around = np.roll(hole, -of_hole, axis=0)
        polygon = np.concatenate([polygon[: at + 1], around, around[:1], polygon[at:]])
    return polygon
