"""A synthetic abdominal MR scan with its ground truth: for tests, and for a first run where there is no scan at hand.

It looks like a fat-suppressed T2-weighted axial scan with thick slices (partial volume, coil shading, noise). It is no
means to judge a model: real scans are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.terminology import label_set_of
from HSAMSegmentLib.phantom.anatomy import (
    LEFT_KIDNEY,
    LIVER,
    RIGHT_KIDNEY,
    SPLEEN,
    Solid,
    inside_abdomen,
    layers,
    organs,
    wall_depth_mm,
)

PHANTOM_LABELS = label_set_of(
    {LIVER: "liver", RIGHT_KIDNEY: "right kidney", LEFT_KIDNEY: "left kidney", SPLEEN: "spleen"}
)

_MIDDLE_MM = np.array([0.0, 0.0, 118.0])
_SUBSLICES = 3
_GRAY_LEVELS = 900.0
_NOISE = 0.012
_FAT_TEXTURE = 0.14
_WAVES = 16


def phantom_geometry(
    size: tuple[int, int, int] = (256, 256, 36),
    spacing_mm: tuple[float, float, float] = (1.25, 1.25, 7.7),
    *,
    oblique_degrees: float = 0.0,
    left_handed: bool = False,
) -> Geometry:
    """An axial grid around the phantom's body.

    Args:
        size: voxels along i, j, k.
        spacing_mm: along i, j, k.
        oblique_degrees: tilt of the grid around two axes of the body.
        left_handed: whether the slices run from head to feet, with the other axes as before.
    """
    first, second = np.radians(oblique_degrees), np.radians(0.5 * oblique_degrees)
    tilt = np.array([[1, 0, 0], [0, np.cos(first), -np.sin(first)], [0, np.sin(first), np.cos(first)]])
    turn = np.array([[np.cos(second), -np.sin(second), 0], [np.sin(second), np.cos(second), 0], [0, 0, 1]])
    direction = tilt @ turn @ np.diag([1.0, 1.0, -1.0 if left_handed else 1.0])
    middle_index = (np.array(size) - 1) / 2.0
    origin = _MIDDLE_MM - direction @ (middle_index * np.array(spacing_mm))
    return Geometry(size, spacing_mm, tuple(origin.tolist()), tuple(direction.ravel().tolist()))


def abdomen_phantom(*, seed: int = 0, geometry: Geometry | None = None) -> tuple[Volume, Segmentation]:
    """Make the phantom.

    Args:
        seed: of its anatomy, texture and noise; the same seed gives the same scan.
        geometry: the grid to sample it on; a usual axial one by default.

    Returns:
        The scan (int16) and its ground truth (liver, right kidney, left kidney, spleen).

    Raises:
        RequestError: if the grid shows nothing of the body.
    """
    geometry = phantom_geometry() if geometry is None else geometry
    random = np.random.default_rng(seed)
    solids = [_placed(solid, geometry) for solid in organs(random)]
    image = np.zeros(geometry.shape, dtype=np.float32)
    truth = np.zeros(geometry.shape, dtype=np.uint8)
    waves = _texture_waves(random)
    for k in range(geometry.size[2]):
        image[k], truth[k] = _slice(geometry, k, solids, waves)
    if not image.any():
        raise RequestError("The grid shows nothing of the phantom; it is around the origin of the patient's axes.")
    noisy = np.hypot(image + random.normal(0, _NOISE, image.shape), random.normal(0, _NOISE, image.shape))
    scan = np.rint(np.clip(noisy, 0.0, 1.2) * _GRAY_LEVELS).astype(np.int16)
    name = f"phantom_{seed}"
    return Volume(scan, geometry, name, "MR"), Segmentation(truth, geometry, PHANTOM_LABELS, name)


def _slice(geometry: Geometry, k: int, solids: list[_PlacedSolid], waves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image and truth of one slice: the image is the mean over its thickness, the truth is that of its middle."""
    offsets = (np.arange(_SUBSLICES) - (_SUBSLICES - 1) / 2.0) / _SUBSLICES
    sheets = [_Sheet(geometry, k + float(offset), solids) for offset in offsets]
    middle = sheets[_SUBSLICES // 2]
    image = np.mean([sheet.image for sheet in sheets], axis=0)
    textured = image * (1.0 + middle.texture * _texture(middle.points, waves))
    return textured * _coil_shading(middle.points), middle.truth


class _Sheet:
    """Brightness, strength of texture and labels on an infinitely thin sheet through the body."""

    def __init__(self, geometry: Geometry, k: float, solids: list[_PlacedSolid]) -> None:
        self.points = _points(geometry, k)
        depth = wall_depth_mm(self.points)
        self.image = layers(self.points, depth)
        self.truth = np.zeros(depth.shape, dtype=np.uint8)
        self.texture = np.where(depth > 0, _FAT_TEXTURE, 0.0).astype(np.float32)
        allowed = {True: inside_abdomen(self.points, depth), False: depth > 0}
        for placed in solids:
            window = placed.window(k)
            if window is not None:
                self._paint(placed.solid, window, allowed[placed.solid.abdominal])

    def _paint(self, solid: Solid, window: tuple[slice, slice], allowed: np.ndarray) -> None:
        inside = solid.contains(self.points[:, window[0], window[1]]) & allowed[window]
        if solid.label is None:
            inside &= self.truth[window] == LIVER
        else:
            self.truth[window][inside] = solid.label
        self.image[window][inside] = solid.brightness
        self.texture[window][inside] = solid.texture


@dataclass(frozen=True)
class _PlacedSolid:
    """A solid and the box of voxel indices (i, j, k) that it can reach."""

    solid: Solid
    lowest: tuple[float, ...]
    highest: tuple[float, ...]

    def window(self, k: float) -> tuple[slice, slice] | None:
        """Rows and columns that it can reach in a slice, or None if it does not reach the slice."""
        if not self.lowest[2] <= k <= self.highest[2]:
            return None
        low = [max(math.ceil(self.lowest[axis]), 0) for axis in (1, 0)]
        high = [max(math.floor(self.highest[axis]) + 1, 0) for axis in (1, 0)]
        return slice(low[0], high[0]), slice(low[1], high[1])


def _placed(solid: Solid, geometry: Geometry) -> _PlacedSolid:
    directions, spacing = geometry.direction_matrix, np.array(geometry.spacing_mm)
    center = directions.T @ (np.array(solid.center_mm) - np.array(geometry.origin_mm)) / spacing
    reach = np.array([solid.half_extent_mm(direction) for direction in directions.T]) / spacing
    return _PlacedSolid(solid, tuple((center - reach).tolist()), tuple((center + reach).tolist()))


def _points(geometry: Geometry, k: float) -> np.ndarray:
    """Body coordinates [3, j, i] of the pixels of a slice."""
    matrix = geometry.ijk_to_lps.astype(np.float32)
    i = np.arange(geometry.size[0], dtype=np.float32)
    j = np.arange(geometry.size[1], dtype=np.float32)[:, np.newaxis]
    return np.stack([row[0] * i + row[1] * j + np.float32(row[2] * k + row[3]) for row in matrix[:3]])


def _texture_waves(random: np.random.Generator) -> np.ndarray:
    """Wave vectors (rad per mm) and phases [waves, 4] of lengths between 4 and 25 mm."""
    directions = random.normal(size=(_WAVES, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = random.uniform(4.0, 25.0, size=(_WAVES, 1))
    phases = random.uniform(0.0, 2.0 * np.pi, size=(_WAVES, 1))
    return np.hstack([directions * 2.0 * np.pi / lengths, phases]).astype(np.float32)


def _texture(points: np.ndarray, waves: np.ndarray) -> np.ndarray:
    """A field of mean 0 and deviation 1, the same at the same point of the body whatever the grid."""
    waves_sum = sum(np.cos(np.tensordot(wave[:3], points, axes=1) + wave[3]) for wave in waves)
    array: np.ndarray = waves_sum * np.float32(np.sqrt(2.0 / len(waves)))
    return array


def _coil_shading(points: np.ndarray) -> np.ndarray:
    """A little brighter towards the coils at back and front, and to the left."""
    array: np.ndarray = 0.92 + 0.16 * (points[1] / 110.0) ** 2 + 0.05 * points[0] / 165.0
    return array
