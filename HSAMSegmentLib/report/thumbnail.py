"""Thumbnail of a segmented scan: the most informative slice, with outlines."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from HSAMSegmentLib.images.orientation import SliceFrame, slice_frame
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.report.preview_picture import display_limits, outline_colors, shown_part, side_letters

if TYPE_CHECKING:
    from PIL import ImageDraw

PIXELS = 200
_QUALITY = 72


def make_thumbnail(volume: Volume, segmentation: Segmentation, *, pixels: int = PIXELS) -> bytes:
    """Render a JPEG of one slice with its longer side at `pixels`, and with letters for the patient's sides.

    Args:
        volume: the scan.
        segmentation: its labels on the same grid.
        pixels: size of the picture.
    """
    from PIL import Image, ImageDraw

    frame = slice_frame(volume.geometry)
    image, labels = frame.to_stack(volume.array), frame.to_stack(segmentation.array)
    limits = display_limits(image, volume.modality)
    rows, columns = shown_part(image, labels, limits)
    index = _fullest_slice(labels)
    part, marked = image[index][rows, columns].astype(np.float32), labels[index][rows, columns]
    zoom = _zoom(part.shape, frame, pixels)
    gray = np.clip((_resized(part, zoom, 1) - limits[0]) / (limits[1] - limits[0]), 0.0, 1.0)
    picture = np.repeat((255 * gray[..., np.newaxis]).astype(np.uint8), 3, axis=2)
    shown = _resized(marked, zoom, 0)
    colors = outline_colors(tuple(segmentation.labels))
    for label in segmentation.labels:
        mask = shown == label.value
        picture[mask & ~ndimage.binary_erosion(mask)] = [round(255 * part) for part in colors[label.value]]
    drawing = Image.fromarray(picture)
    _draw_sides(ImageDraw.Draw(drawing), drawing.size, frame)
    stream = io.BytesIO()
    # Full color resolution, since outlines are one pixel wide.
    drawing.save(stream, "JPEG", quality=_QUALITY, subsampling=0)
    return stream.getvalue()


def _fullest_slice(labels: np.ndarray) -> int:
    """The slice with the most structures, and among equals with the most labeled pixels; else the middle one."""
    best, best_score = len(labels) // 2, (0, 0)
    for index, plane in enumerate(labels):
        counts = np.bincount(plane.ravel(), minlength=256)[1:]
        score = (int(np.count_nonzero(counts)), int(counts.sum()))
        if score > best_score:
            best, best_score = index, score
    return best


def _zoom(shape: tuple[int, int], frame: SliceFrame, pixels: int) -> tuple[float, float]:
    """Zoom factors for rows and columns that make pixels square and give the longer side its length."""
    row_mm, column_mm = frame.pixel_spacing_mm
    scale = pixels / max(shape[0] * row_mm, shape[1] * column_mm)
    return scale * row_mm, scale * column_mm


def _resized(plane: np.ndarray, zoom: tuple[float, float], order: int) -> np.ndarray:
    size = [max(1, round(length * factor)) for length, factor in zip(plane.shape, zoom)]
    places = [(np.arange(count) + 0.5) * length / count - 0.5 for count, length in zip(size, plane.shape)]
    grid = np.meshgrid(*places, indexing="ij")
    resized: np.ndarray = ndimage.map_coordinates(plane, grid, order=order, mode="nearest")
    return resized


def _draw_sides(drawing: ImageDraw.ImageDraw, size: tuple[int, int], frame: SliceFrame) -> None:
    _, rows, columns = frame.directions
    width, height = size
    places = {
        (3, height // 2 - 6): [-part for part in columns],
        (width - 15, height // 2 - 6): columns,
        (width // 2 - 4, 1): [-part for part in rows],
        (width // 2 - 4, height - 13): rows,
    }
    for place, direction in places.items():
        drawing.text(place, side_letters(direction)[:1], fill="white", stroke_width=1, stroke_fill="black")
