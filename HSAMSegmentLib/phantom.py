"""A synthetic abdominal MR scan with its ground truth, for tests and for a first run without a scan at hand.

It resembles a fat-suppressed T2-weighted axial scan with thick slices (partial volume, coil shading, noise). Do not
judge a model by it; use real scans.

The anatomy is built from simple solids, painted over one another.
Body coordinates are in millimeters toward left, posterior and superior (LPS), with the origin in the middle of the
body at the level of the lower end of the kidneys. Brightness follows fat-suppressed T2 weighting, with fluid at 1: fat
and flowing blood are dark, muscle and liver gray, spleen and kidneys bright. All numbers are our own; none is taken
from a scan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.terminology import label_set_of
from HSAMSegmentLib.runtime.serialization import triple

BODY_HALF_WIDTH_MM = (165.0, 108.0)
_OUTLINE_POWER = 2.4
_WALL_MM = 25.0
_DIAPHRAGM_MM = ((-65.0, 0.0, 232.0), (75.0, 5.0, 222.0))

LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN = 1, 2, 3, 4
PHANTOM_LABELS = label_set_of(
    {LIVER: "liver", RIGHT_KIDNEY: "right kidney", LEFT_KIDNEY: "left kidney", SPLEEN: "spleen"}
)

_MIDDLE_MM = np.array([0.0, 0.0, 118.0])
_SUBSLICES = 3
_GRAY_LEVELS = 900.0
_NOISE = 0.012
_FAT_TEXTURE = 0.14
_WAVES = 16


@dataclass(frozen=True)
class Solid:
    """An ellipsoid, possibly clipped, with a brightness.

    Attributes:
        center_mm: in body coordinates.
        radii_mm: along its own axes.
        brightness: brightness inside the solid.
        label: value in the ground truth, or None to keep the label underneath.
        texture: relative strength of the fine structure.
        tilt_degrees: rotation around the posterior axis.
        abdominal: clip at the abdominal wall and the diaphragm.
    """

    center_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    brightness: float
    label: int | None = 0
    texture: float = 0.05
    tilt_degrees: float = 0.0
    abdominal: bool = True

    def half_extent_mm(self, direction: np.ndarray) -> float:
        """Extent of the ellipsoid from its center along a unit vector."""
        return float(np.linalg.norm(np.array(self.radii_mm) * np.array(self._own_axes(direction))))

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Mask of the points [3, ...] inside the ellipsoid."""
        offsets = [points[axis] - np.float32(self.center_mm[axis]) for axis in range(3)]
        distance: np.ndarray = sum(
            ((value / radius) ** 2 for value, radius in zip(self._own_axes(offsets), self.radii_mm)),
            np.zeros((), np.float32),
        )
        return distance <= 1.0

    def _own_axes(self, vector: Sequence[np.ndarray] | np.ndarray) -> tuple[np.ndarray, ...]:
        """Project a vector onto the ellipsoid's axes."""
        left, back, up = vector
        if not self.tilt_degrees:
            return left, back, up
        cosine, sine = (float(f(np.radians(self.tilt_degrees))) for f in (np.cos, np.sin))
        return cosine * left + sine * up, back, cosine * up - sine * left


def wall_depth_mm(points: np.ndarray) -> np.ndarray:
    """Approximate depth of points [3, ...] below the skin in mm; negative outside the body."""
    shape = zip(points[:2], BODY_HALF_WIDTH_MM)
    radius = sum(np.abs(value / half) ** _OUTLINE_POWER for value, half in shape) ** (1.0 / _OUTLINE_POWER)
    array: np.ndarray = (1.0 - radius) * 0.5 * sum(BODY_HALF_WIDTH_MM)
    return array


def below_diaphragm(points: np.ndarray) -> np.ndarray:
    """Mask of the points [3, ...] in the abdomen rather than the chest."""
    domes = [top - 75.0 * _squared(points, left, back) for left, back, top in _DIAPHRAGM_MM]
    array: np.ndarray = points[2] <= np.maximum(*domes)
    return array


def inside_abdomen(points: np.ndarray, depth_mm: np.ndarray) -> np.ndarray:
    """Mask of the points [3, ...] inside the wall and below the diaphragm."""
    array: np.ndarray = (depth_mm > _WALL_MM) & below_diaphragm(points)
    return array


def layers(points: np.ndarray, depth_mm: np.ndarray) -> np.ndarray:
    """Brightness of skin, fat, muscle, fat between the organs, and lungs at points [3, ...]; air is 0."""
    image = np.zeros(depth_mm.shape, dtype=np.float32)
    for least_depth, brightness in ((0.0, 0.16), (2.5, 0.07), (15.0, 0.17), (_WALL_MM, 0.12)):
        image[depth_mm > least_depth] = brightness
    image[(depth_mm > _WALL_MM) & ~below_diaphragm(points)] = 0.025
    return image


def organs(random: np.random.Generator) -> list[Solid]:
    """All solids in painting order, varied a little by the seed."""
    solids = [*_bowel(random), *_middle(random), *_liver(random), *_left_side(random)]
    return [*solids, *_kidney(random, -1), *_kidney(random, 1), *_back()]


def _squared(points: np.ndarray, left: float, back: float) -> np.ndarray:
    array: np.ndarray = ((points[0] - left) / 110.0) ** 2 + ((points[1] - back) / 100.0) ** 2
    return array


def _near(random: np.random.Generator, values: tuple[float, float, float], spread: float) -> tuple[float, float, float]:
    return triple(float(value + random.uniform(-spread, spread)) for value in values)


def _about(
    random: np.random.Generator, values: tuple[float, float, float], part: float = 0.05
) -> tuple[float, float, float]:
    return triple(float(value * random.uniform(1.0 - part, 1.0 + part)) for value in values)


def _bowel(random: np.random.Generator) -> list[Solid]:
    """Loops in front; the ascending and descending colon at the sides."""
    loops = []
    for _ in range(60):
        center = (random.uniform(-100, 105), random.uniform(-80, 5), random.uniform(-40, 112))
        radii = (random.uniform(14, 28), random.uniform(9, 14), random.uniform(9, 16))
        tilt = random.uniform(-60, 60)
        loops.append(Solid(center, radii, float(random.choice((0.2, 0.45, 0.9))), texture=0.15, tilt_degrees=tilt))
    colon = [Solid(_near(random, (side * 112, 5, 20), 5), (20, 24, 75), 0.15, texture=0.4) for side in (-1, 1)]
    return loops + colon


def _middle(random: np.random.Generator) -> list[Solid]:
    """Pancreas, great vessels, heart."""
    return [
        Solid(_near(random, (-18, -4, 122), 3), (20, 14, 24), 0.4),
        Solid(_near(random, (28, 2, 142), 3), (46, 11, 13), 0.4, tilt_degrees=18.0),
        Solid((22, -38, 262), (62, 48, 38), 0.2, texture=0.15, abdominal=False),
        Solid((10, 31, 120), (9, 9, 400), 0.1, abdominal=False),
    ]


def _liver(random: np.random.Generator) -> list[Solid]:
    brightness = float(random.uniform(0.34, 0.4))
    lobes = [
        Solid(_near(random, (-92, 2, 158), 4), _about(random, (86, 102, 96)), brightness, LIVER, 0.09),
        Solid(
            _near(random, (-8, -52, 188), 4), _about(random, (82, 42, 36)), brightness, LIVER, 0.09, tilt_degrees=-8.0
        ),
    ]
    hilum = Solid((-16, 26, 138), (28, 27, 46), 0.14, 0, 0.3)
    gallbladder = Solid(_near(random, (-48, -44, 112), 4), (14, 18, 26), 0.9, 0, 0.02)
    cava = Solid((-22, 30, 150), (11, 10, 400), 0.08, 0, abdominal=False)
    return [*lobes, *_liver_vessels(random), hilum, gallbladder, cava]


def _liver_vessels(random: np.random.Generator) -> list[Solid]:
    """Bright branches: chains of small ellipsoids from the hilum outward, labeled as liver."""
    branches = []
    for _ in range(16):
        start = np.array([-42.0, 0.0, 165.0])
        end = np.array([random.uniform(-140, -30), random.uniform(-70, 75), random.uniform(110, 215)])
        for part in np.linspace(0.15, 0.85, 9):
            center = triple(float(value) for value in start + part * (end - start))
            radius = float(4.2 - 2.2 * part)
            branches.append(Solid(center, (1.7 * radius, 1.7 * radius, 6.0), 0.6, None, 0.0))
    return branches


def _left_side(random: np.random.Generator) -> list[Solid]:
    """The spleen, cut to a crescent by the stomach in front of it."""
    spleen = Solid(_near(random, (104, 44, 163), 4), _about(random, (46, 56, 50)), 0.72, SPLEEN, 0.05)
    stomach = Solid(_near(random, (62, -14, 178), 3), _about(random, (52, 52, 50)), 0.6, 0, 0.08, tilt_degrees=25.0)
    return [spleen, stomach]


def _kidney(random: np.random.Generator, side: int) -> list[Solid]:
    """Cortex, darker medulla, and the sinus, which opens toward the middle."""
    label = LEFT_KIDNEY if side > 0 else RIGHT_KIDNEY
    left, back, up = _near(random, (side * 66, 50, 92 if side < 0 else 104), 4)
    tilt = side * float(random.uniform(8, 16))
    radii = _about(random, (27, 31, 54))
    inner = triple(0.68 * radius for radius in radii)
    sinus = (left - side * 15, back - 10, up)
    return [
        Solid((left, back, up), radii, 0.8, label, 0.06, tilt),
        Solid((left, back, up), inner, 0.66, label, 0.15, tilt),
        Solid(sinus, (16, 13, 18), 0.2, 0, 0.3, tilt),
    ]


def _back() -> list[Solid]:
    """Vertebrae with discs between them, the canal with its cord, and the muscles beside them."""
    muscles = [Solid((side * 36, 84, 120), (30, 15, 400), 0.15, 0, 0.2, abdominal=False) for side in (-1, 1)]
    psoas = [Solid((side * 36, 50, -10), (16, 16, 95), 0.16, 0, 0.1, abdominal=False) for side in (-1, 1)]
    column = [Solid((0, 54, 120), (21, 16, 400), 0.15, 0, abdominal=False)]
    vertebrae = [Solid((0, 54, level), (22, 17, 15.5), 0.25, 0, 0.1, abdominal=False) for level in range(-60, 330, 33)]
    canal = Solid((0, 78, 120), (9, 7, 400), 0.9, 0, 0.05, abdominal=False)
    cord = Solid((0, 78, 220), (4, 3.5, 160), 0.45, 0, abdominal=False)
    return [*muscles, *psoas, *column, *vertebrae, canal, cord]


def phantom_geometry(
    size: tuple[int, int, int] = (256, 256, 36),
    spacing_mm: tuple[float, float, float] = (1.25, 1.25, 7.7),
    *,
    oblique_degrees: float = 0.0,
    left_handed: bool = False,
) -> Geometry:
    """Build an axial grid around the phantom's body.

    Args:
        size: voxels along i, j, k.
        spacing_mm: along i, j, k.
        oblique_degrees: tilt of the grid around two axes of the body.
        left_handed: order the slices from head to feet, leaving the other axes unchanged.
    """
    first, second = np.radians(oblique_degrees), np.radians(0.5 * oblique_degrees)
    tilt = np.array([[1, 0, 0], [0, np.cos(first), -np.sin(first)], [0, np.sin(first), np.cos(first)]])
    turn = np.array([[np.cos(second), -np.sin(second), 0], [np.sin(second), np.cos(second), 0], [0, 0, 1]])
    direction = tilt @ turn @ np.diag([1.0, 1.0, -1.0 if left_handed else 1.0])
    middle_index = (np.array(size) - 1) / 2.0
    origin = _MIDDLE_MM - direction @ (middle_index * np.array(spacing_mm))
    return Geometry(size, spacing_mm, tuple(origin.tolist()), tuple(direction.ravel().tolist()))


def abdomen_phantom(*, seed: int = 0, geometry: Geometry | None = None) -> tuple[Volume, Segmentation]:
    """Generate the phantom.

    Args:
        seed: random seed of anatomy, texture and noise; the same seed gives the same scan.
        geometry: sampling grid; default: a typical axial one.

    Returns:
        The scan (int16) and its ground truth (liver, right kidney, left kidney, spleen).

    Raises:
        RequestError: if the grid does not intersect the body.
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
    """Image and ground truth of one slice: the image averages over the slice thickness, the truth is the mid-plane."""
    offsets = (np.arange(_SUBSLICES) - (_SUBSLICES - 1) / 2.0) / _SUBSLICES
    sheets = [_Sheet(geometry, k + float(offset), solids) for offset in offsets]
    middle = sheets[_SUBSLICES // 2]
    image = np.mean([sheet.image for sheet in sheets], axis=0)
    textured = image * (1.0 + middle.texture * _texture(middle.points, waves))
    return textured * _coil_shading(middle.points), middle.truth


class _Sheet:
    """Brightness, texture strength and labels on an infinitely thin sheet through the body."""

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
    """A solid and its bounding box in voxel indices (i, j, k)."""

    solid: Solid
    lowest: tuple[float, ...]
    highest: tuple[float, ...]

    def window(self, k: float) -> tuple[slice, slice] | None:
        """Rows and columns that the solid can cover in a slice, or None if it misses the slice."""
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
    """Wave vectors (rad/mm) and phases [waves, 4] for wavelengths between 4 and 25 mm."""
    directions = random.normal(size=(_WAVES, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = random.uniform(4.0, 25.0, size=(_WAVES, 1))
    phases = random.uniform(0.0, 2.0 * np.pi, size=(_WAVES, 1))
    return np.hstack([directions * 2.0 * np.pi / lengths, phases]).astype(np.float32)


def _texture(points: np.ndarray, waves: np.ndarray) -> np.ndarray:
    """A random field with mean 0 and standard deviation 1, fixed to the body, independent of the grid."""
    waves_sum = sum(np.cos(np.tensordot(wave[:3], points, axes=1) + wave[3]) for wave in waves)
    array: np.ndarray = waves_sum * np.float32(np.sqrt(2.0 / len(waves)))
    return array


def _coil_shading(points: np.ndarray) -> np.ndarray:
    """Coil sensitivity: slightly brighter toward anterior, posterior and left."""
    array: np.ndarray = 0.92 + 0.16 * (points[1] / 110.0) ** 2 + 0.05 * points[0] / 165.0
    return array
