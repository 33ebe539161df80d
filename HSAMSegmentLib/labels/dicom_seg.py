"""Read DICOM Segmentation objects: binary, fractional and label map, with names, codes, colors and geometry.

Frames may come in any order, empty ones may be omitted, and segments may overlap (PS3.3, C.8.20). Colors are stored as
CIELab at D50 in three 16-bit numbers (PS3.3, C.10.7.1.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.io.image_files import name_without_suffix
from HSAMSegmentLib.labels.label_set import Code, Label, LabelSet, Terminology
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.structures import TISSUE
from HSAMSegmentLib.labels.terminology import fallback_color, find_structure, unique_name
from HSAMSegmentLib.runtime.serialization import triple

if TYPE_CHECKING:
    from pydicom import Dataset


_D50_TO_SRGB = np.array(
    [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
)
"""XYZ at D50 to linear sRGB, Bradford adapted (Lindbloom)."""
_WHITE = np.array([0.9642, 1.0, 0.8249])
_KNEE = 6 / 29

SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_MOST_SEGMENTS = 255
_STEP_TOLERANCE = 0.05
_SAME_PLACE_MM = 1e-3
_SAME_COSINE = 1e-4


def srgb_of(stored: Sequence[float]) -> tuple[float, float, float]:
    """Red, green and blue, each 0 to 1, of a stored color; colors outside sRGB are clipped."""
    lightness, a, b = (stored[0] / 65535 * 100, stored[1] / 65535 * 255 - 128, stored[2] / 65535 * 255 - 128)
    y = (lightness + 16) / 116
    roots = np.array([y + a / 500, y, y - b / 200])
    xyz = _WHITE * np.where(roots > _KNEE, roots**3, 3 * _KNEE**2 * (roots - 4 / 29))
    linear = _D50_TO_SRGB @ xyz
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.clip(linear, 0, None) ** (1 / 2.4) - 0.055)
    red, green, blue = np.clip(gamma, 0.0, 1.0)
    return (float(red), float(green), float(blue))


def cielab_of(color: Sequence[float]) -> tuple[float, float, float]:
    """Lightness 0 to 100, a* and b* -128 to 127, of a color with red, green and blue from 0 to 1."""
    gamma = np.asarray(color, dtype=float)
    linear = np.where(gamma <= 0.04045, gamma / 12.92, ((gamma + 0.055) / 1.055) ** 2.4)
    xyz = np.linalg.solve(_D50_TO_SRGB, linear) / _WHITE
    x, y, z = np.where(xyz > _KNEE**3, np.cbrt(xyz), xyz / (3 * _KNEE**2) + 4 / 29)
    lab = (116 * y - 16, 500 * (x - y), 200 * (y - z))
    low, high = (0.0, -128.0, -128.0), (100.0, 127.0, 127.0)
    return triple(float(np.clip(part, least, most)) for part, least, most in zip(lab, low, high))


@dataclass(frozen=True)
class _Frame:
    """Position and segment of a frame (segment 0 if the pixels are segment numbers)."""

    index: int
    segment: int
    position: np.ndarray


def read_dicom_seg(path: Path, content: Dataset) -> Segmentation:
    """Read all segments into one label map; where two overlap, the smaller one stays visible.

    Args:
        path: the file, for names and messages.
        content: the file, read by pydicom with its pixels.

    Raises:
        VolumeError: if the object does not state the positions of its frames, or they are not a stack.
    """
    # Number 0 describes the background of a label map.
    described = {int(item.SegmentNumber): item for item in content.SegmentSequence if int(item.SegmentNumber)}
    if len(described) > _MOST_SEGMENTS:
        raise VolumeError(f'"{path.name}" has {len(described)} segments; {_MOST_SEGMENTS} is the most that fits.')
    frames = list(_frames(path, content))
    geometry, slices = _geometry(path, content, frames)
    masks, notes = _masks(content)
    values = {number: value for value, number in enumerate(sorted(described), start=1)}
    if all(number <= _MOST_SEGMENTS for number in described):
        values = {number: number for number in described}
    notes += _undescribed(masks, frames, values)
    array, overlap = _merged(masks, frames, slices, geometry, values)
    if overlap:
        notes += (f"Segments overlap in {overlap} voxels; there the smaller segment was kept.",)
    return Segmentation(array, geometry, _label_set(described, values), name_without_suffix(path), notes)


def _frames(path: Path, content: Dataset) -> Iterator[_Frame]:
    is_label_map = _kind(content) == "LABELMAP"
    for index, groups in enumerate(content.get("PerFrameFunctionalGroupsSequence", [])):
        place = _group(content, groups, "PlanePositionSequence")
        segment = None if is_label_map else _group(content, groups, "SegmentIdentificationSequence")
        if place is None or (segment is None and not is_label_map):
            raise VolumeError(
                f'"{path.name}" does not say where its frames are, or which segment they show; export it again.'
            )
        number = 0 if segment is None else int(segment.ReferencedSegmentNumber)
        yield _Frame(index, number, np.array(place.ImagePositionPatient, dtype=float))


def _group(content: Dataset, groups: Dataset, name: str) -> Dataset | None:
    """A functional group of a frame: its own, or the shared one."""
    for source in (groups, *content.get("SharedFunctionalGroupsSequence", [])):
        if name in source and len(source[name].value):
            found: Dataset | None = source[name].value[0]
            return found
    return None


def _kind(content: Dataset) -> str:
    return str(content.get("SegmentationType", "BINARY")).upper()


def _geometry(path: Path, content: Dataset, frames: Sequence[_Frame]) -> tuple[Geometry, list[int]]:
    """The grid, and the slice index of each frame."""
    if not frames:
        raise VolumeError(f'"{path.name}" holds no frame; all of its segments are empty.')
    every = content.PerFrameFunctionalGroupsSequence
    row, column = _orientation(path, [_group(content, groups, "PlaneOrientationSequence") for groups in every])
    measures = _group(content, every[0], "PixelMeasuresSequence")
    if measures is None or "PixelSpacing" not in measures:
        raise VolumeError(f'"{path.name}" does not say how large its pixels are; export it again.')
    normal = np.cross(row, column)
    positions = np.array([frame.position for frame in frames])
    depths = positions @ normal
    step = _step(positions, depths, normal, measures)
    first = positions[int(np.argmin(depths))]
    numbers = (depths - depths.min()) / float(step @ normal)
    slices = np.rint(numbers).astype(int)
    expected = first + slices[:, np.newaxis] * step
    if np.abs(positions - expected).max() > _STEP_TOLERANCE * float(np.linalg.norm(step)):
        raise VolumeError(
            f'The frames of "{path.name}" are not at even distances; export it again on the grid of its scan.'
        )
    spacing = [float(value) for value in measures.PixelSpacing]
    length = float(np.linalg.norm(step))
    geometry = Geometry(
        size=(int(content.Columns), int(content.Rows), int(slices.max()) + 1),
        spacing_mm=(spacing[1], spacing[0], length),
        origin_mm=(float(first[0]), float(first[1]), float(first[2])),
        direction=tuple(float(value) for value in np.array([row, column, step / length]).T.ravel()),
    )
    return geometry, slices.tolist()


def _orientation(path: Path, found: Sequence[Dataset | None]) -> tuple[np.ndarray, np.ndarray]:
    known = [np.array(item.ImageOrientationPatient, dtype=float) for item in found if item is not None]
    if len(known) < len(found) or np.ptp(known, axis=0).max() > _SAME_COSINE:
        raise VolumeError(f'The frames of "{path.name}" are not parallel, or do not say how they lie; export it again.')
    return known[0][:3], known[0][3:]


def _step(positions: np.ndarray, depths: np.ndarray, normal: np.ndarray, measures: Dataset) -> np.ndarray:
    """LPS mm from one slice to the next; frames in between may be missing."""
    distinct = np.unique(np.round(depths / _SAME_PLACE_MM)) * _SAME_PLACE_MM
    between, thickness = (float(measures.get(name, 0) or 0) for name in ("SpacingBetweenSlices", "SliceThickness"))
    if len(distinct) < 2:
        return normal * (between or thickness or 1.0)
    gaps = np.diff(distinct)
    distance = float(gaps.min())
    is_even = len(gaps) > 1 and np.ptp(gaps) < _STEP_TOLERANCE * distance
    if _divides(between, gaps):
        distance = between
    elif not is_even and _divides(thickness, gaps):  # empty frames were omitted in between
        distance = thickness
    low, high = positions[int(np.argmin(depths))], positions[int(np.argmax(depths))]
    array: np.ndarray = (high - low) / max(1, round(float(distinct[-1] - distinct[0]) / distance))
    return array


def _divides(length: float, gaps: np.ndarray) -> bool:
    """Whether all distances are integer multiples of a length."""
    if length <= 0:
        return False
    times = gaps / length
    return bool(np.all(np.rint(times) >= 1) and np.abs(times - np.rint(times)).max() < _STEP_TOLERANCE)


def _masks(content: Dataset) -> tuple[np.ndarray, tuple[str, ...]]:
    """Pixels [frame, row, column]: booleans, or segment numbers of a label map; and notes."""
    pixels = content.pixel_array
    pixels = pixels[np.newaxis] if pixels.ndim == 2 else pixels
    if _kind(content) != "FRACTIONAL":
        return pixels, ()
    highest = int(content.get("MaximumFractionalValue", 255))
    note = "The segments are fractional; voxels of one half and more were taken."
    return 2 * pixels.astype(np.int32) >= highest, (note,)


def _merged(
    masks: np.ndarray, frames: Sequence[_Frame], slices: Sequence[int], geometry: Geometry, values: dict[int, int]
) -> tuple[np.ndarray, int]:
    """uint8 labels (k, j, i), the smallest segment painted last, and the number of shared voxels."""
    array = np.zeros(geometry.shape, dtype=np.uint8)
    if all(frame.segment == 0 for frame in frames):
        table = np.zeros(max(int(masks.max(initial=0)), *values) + 1, dtype=np.uint8)
        table[list(values)] = list(values.values())
        for frame in frames:
            array[slices[frame.index]] = table[masks[frame.index]]
        return array, 0
    frames = [frame for frame in frames if frame.segment in values]
    sizes = dict.fromkeys(values, 0)
    for frame in frames:
        sizes[frame.segment] += int(np.count_nonzero(masks[frame.index]))
    overlap = 0
    for number in sorted(sizes, key=lambda item: -sizes[item]):
        for frame in (frame for frame in frames if frame.segment == number):
            part, mask = array[slices[frame.index]], masks[frame.index].astype(bool)
            overlap += int(np.count_nonzero(part[mask]))
            part[mask] = values[number]
    return array, overlap


def _undescribed(masks: np.ndarray, frames: Sequence[_Frame], values: dict[int, int]) -> tuple[str, ...]:
    """A sentence on voxels of segments that the file does not describe."""
    if all(frame.segment == 0 for frame in frames):
        found = {int(number) for number in np.unique(masks)} - {0}
    else:
        found = {frame.segment for frame in frames if masks[frame.index].any()}
    unknown = sorted(found - set(values))
    if not unknown:
        return ()
    return (f"Segment {', '.join(map(str, unknown))} is not described in the file, and was left out.",)


def _label_set(described: dict[int, Any], values: dict[int, int]) -> LabelSet:
    labels: list[Label] = []
    for number in sorted(described):
        item = described[number]
        name = str(item.get("SegmentLabel", "") or "").strip() or f"Segment {number}"
        value = values[number]
        unique = unique_name(name, [label.name for label in labels], value)
        known = find_structure(name)
        color = _color(item) or (known.color if known else fallback_color(value))
        terms = _terminology(item) or (known.terminology if known else None)
        labels.append(Label(value, unique, color, terms, known.single_piece if known else False))
    return LabelSet(tuple(labels))


def _terminology(item: Dataset) -> Terminology | None:
    category = _code(item.get("SegmentedPropertyCategoryCodeSequence"))
    kind = _code(item.get("SegmentedPropertyTypeCodeSequence"))
    if category is None or kind is None or kind.value == TISSUE.value:
        return None
    modifiers = item.SegmentedPropertyTypeCodeSequence[0].get("SegmentedPropertyTypeModifierCodeSequence")
    return Terminology(category, kind, _code(modifiers))


def _code(sequence: Any) -> Code | None:
    if not sequence:
        return None
    item = sequence[0]
    parts = ("CodingSchemeDesignator", "CodeValue", "CodeMeaning")
    scheme, value, meaning = (str(item.get(name, "")) for name in parts)
    return Code(scheme, value, meaning)


def _color(item: Dataset) -> tuple[float, float, float] | None:
    """The recommended color, red, green and blue."""
    stored = item.get("RecommendedDisplayCIELabValue")
    if stored is None or len(stored) != 3:
        return None
    return srgb_of(stored)
