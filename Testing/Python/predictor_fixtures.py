"""What tests of the segmenter share: segmenting without post-processing, and the same scan on other grids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from small_models import brightness_model

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.options import PostprocessOptions, SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter

RAW = PostprocessOptions(largest_piece=False, fill_holes=False, minimum_ml=0.0)


def segment(volume: Volume, model=None, **options):
    options.setdefault("postprocess", RAW)
    options.setdefault("threads", 1)
    return Segmenter(model or brightness_model(), device="cpu", options=SegmentOptions(**options)).segment(volume)


def reordered(volume: Volume, order: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> Volume:
    """The same scan stored with its axes in another order and direction."""
    geometry = volume.geometry
    columns = geometry.direction_matrix
    array = volume.array.transpose([2 - axis for axis in reversed(order)])
    size = [geometry.size[axis] for axis in order]
    spacing = [geometry.spacing_mm[axis] for axis in order]
    direction = columns[:, list(order)].copy()
    origin = np.array(geometry.origin_mm)
    for position, flipped in enumerate(flips):
        if flipped:
            array = np.flip(array, 2 - position)
            origin = origin + direction[:, position] * spacing[position] * (size[position] - 1)
            direction[:, position] *= -1
    return Volume(
        np.ascontiguousarray(array),
        Geometry(tuple(size), tuple(spacing), tuple(origin), tuple(direction.ravel())),
        name=volume.name,
    )


def back(array: np.ndarray, order: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> np.ndarray:
    for position, flipped in enumerate(flips):
        array = np.flip(array, 2 - position) if flipped else array
    axes = [2 - axis for axis in reversed(order)]
    return array.transpose(np.argsort(axes))


def oblique(volume: Volume, handed: int = 1) -> Volume:
    """The same voxels in a tilted grid, right-handed or mirrored."""
    a, b = np.deg2rad(20.0), np.deg2rad(15.0)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    direction = about_z @ about_x @ np.diag([1.0, 1.0, handed])
    return replace(volume, geometry=replace(volume.geometry, direction=tuple(direction.ravel())))
