"""Picture of a validation slice: the reference on the left, the prediction on the right. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from HSAMSegmentLib.labels.label_set import Label
from HSAMSegmentLib.report.preview_picture import outline_colors

SIDE_PIXELS = 320
_GAP_PIXELS = 6
_MARGIN = 8


def write_pair(
    image: np.ndarray,
    reference: np.ndarray,
    predicted: np.ndarray,
    labels: Sequence[Label],
    path: Path,
    *,
    pixel_spacing_mm: tuple[float, float] = (1.0, 1.0),
) -> None:
    """Write the PNG file atomically, so that a partial picture is never read.

    Args:
        image: uint8 [rows, cols].
        reference: uint8 labels [rows, cols].
        predicted: uint8 labels [rows, cols].
        labels: labels of the values; provides the colors.
        path: path of the PNG file.
        pixel_spacing_mm: spacing of rows and of columns.
    """
    rows, columns = _content(image, reference, predicted)
    scale = _scale(rows, columns, pixel_spacing_mm)
    colors = outline_colors(tuple(labels))
    sides = [_side(image[rows, columns], found[rows, columns], colors, scale) for found in (reference, predicted)]
    gap = np.full((sides[0].shape[0], _GAP_PIXELS, 3), 255, dtype=np.uint8)
    picture = sitk.GetImageFromArray(np.concatenate([sides[0], gap, sides[1]], axis=1), isVector=True)
    temporary = path.with_name(f".writing-{path.name}")
    sitk.WriteImage(picture, str(temporary))
    temporary.replace(path)


def _content(*layers: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns with any content, plus a margin."""
    image, *labels = layers
    used = image > 12
    for found in labels:
        used |= found > 0
    ranges = []
    for axis in (1, 0):
        hits = np.flatnonzero(used.any(axis=axis))
        length = used.shape[1 - axis]
        first, last = (int(hits[0]), int(hits[-1]) + 1) if hits.size else (0, length)
        ranges.append(slice(max(0, first - _MARGIN), min(length, last + _MARGIN)))
    return ranges[0], ranges[1]


def _scale(rows: slice, columns: slice, spacing: tuple[float, float]) -> tuple[float, float]:
    """Picture pixels per row and per column, so that a millimeter is equally long in both directions."""
    height, width = (rows.stop - rows.start) * spacing[0], (columns.stop - columns.start) * spacing[1]
    per_mm = SIDE_PIXELS / max(height, width)
    return per_mm * spacing[0], per_mm * spacing[1]


def _side(image: np.ndarray, labels: np.ndarray, colors: dict[int, Any], scale: tuple[float, float]) -> np.ndarray:
    """Image with colored outlines, uint8 [rows, cols, 3]."""
    from scipy import ndimage

    smooth = np.clip(ndimage.zoom(image.astype(np.float32), scale, order=1, grid_mode=True, mode="nearest"), 0, 255)
    picture = np.repeat(smooth.astype(np.uint8)[..., np.newaxis], 3, axis=2)
    for value, color in colors.items():
        mask = labels == value
        if not mask.any():
            continue
        soft = ndimage.zoom(mask.astype(np.float32), scale, order=1, grid_mode=True, mode="grid-constant")
        large = soft > 0.5
        outline = large & ~ndimage.binary_erosion(large, iterations=2)
        picture[outline] = np.round(255 * np.asarray(color)).astype(np.uint8)
    return picture
