"""Grids that are hard to get right: oblique, left-handed, permuted and flipped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import SimpleITK as sitk

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.sitk_images import geometry_of


def rotation(x_degrees: float, y_degrees: float, z_degrees: float) -> np.ndarray:
    """A rotation matrix: around x, then y, then z."""
    matrix = np.eye(3)
    for axis, degrees in enumerate((x_degrees, y_degrees, z_degrees)):
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        step = np.eye(3)
        first, second = [other for other in range(3) if other != axis]
        sign = -1.0 if axis == 1 else 1.0
        step[first, first] = step[second, second] = cosine
        step[first, second], step[second, first] = -sign * sine, sign * sine
        matrix = step @ matrix
    return matrix


def geometry_with(direction: np.ndarray, size=(6, 5, 4), spacing_mm=(0.7, 1.1, 5.3)) -> Geometry:
    """A grid with these axes."""
    return Geometry(size, spacing_mm, (-12.5, 33.25, 101.125), tuple(direction.ravel().tolist()))


def oblique_geometry(*, left_handed: bool = False, **options) -> Geometry:
    """A grid far from any axis of the patient."""
    return geometry_with(rotation(20, 30, 40) @ np.diag([1, 1, -1 if left_handed else 1]), **options)


def reorientations(image: sitk.Image) -> Iterator[sitk.Image]:
    """The 48 ways to store the same scan: each order and each direction of its axes."""
    for order in itertools.permutations(range(3)):
        permuted = sitk.PermuteAxes(image, order)
        for flips in itertools.product((False, True), repeat=3):
            yield sitk.Flip(permuted, flips, False)


def array_and_geometry(image: sitk.Image) -> tuple[np.ndarray, Geometry]:
    """Voxels [k, j, i] and grid of an image."""
    return sitk.GetArrayFromImage(image), geometry_of(image)
