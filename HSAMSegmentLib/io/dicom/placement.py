"""Where an image of a DICOM file lies, how large its pixels are, and how its values are scaled.

Classic files say so at the top, enhanced ones in functional groups: of each frame, or shared by all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from HSAMSegmentLib.io.dicom.elements import is_given, items, number, numbers

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Directions this near to unit length and to right angles are a matter of rounding; the looser ones are mended.
_EXACT, _MENDED = 1e-4, 0.02
_GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
}


@dataclass(frozen=True)
class FramePlace:
    """Place and scale of one image.

    Attributes:
        position: LPS mm of the first pixel, or None.
        orientation: six numbers, as the file has them, or None.
        spacing: distance of rows and of columns in mm, or None.
        rescale: slope and intercept from stored to real values, NaN where the file has one that cannot be read.
    """

    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    rescale: tuple[float, float]


def place_of(data: Dataset) -> FramePlace:
    """The place of the only or first image of a file."""
    shared = _first(items(data, "SharedFunctionalGroupsSequence"))
    own = _first(items(data, "PerFrameFunctionalGroupsSequence"))
    return _place([*_groups(own), *_groups(shared), data])


def frame_places(data: Dataset, frames: int) -> tuple[FramePlace, ...]:
    """The place of each frame of a file, in their order; empty if the file does not have one item for each."""
    shared = _groups(_first(items(data, "SharedFunctionalGroupsSequence")))
    own = items(data, "PerFrameFunctionalGroupsSequence")
    if len(own) != frames:
        return ()
    return tuple(_place([*_groups(frame), *shared, data], position_from=_groups(frame)) for frame in own)


def usable_orientation(found: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Directions of a row and a column: as they are, mended where they are nearly right; None if they are no such."""
    if found is None:
        return None
    row, column = np.array(found[:3]), np.array(found[3:])
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    deviation = max(float(np.abs(lengths - 1).max()), abs(float(row @ column)))
    if deviation <= _EXACT:
        return found
    if deviation > _MENDED:
        return None
    row = row / lengths[0]
    column = column - (column @ row) * row
    return tuple(float(value) for value in (*row, *(column / np.linalg.norm(column))))


def _first(found: list[Dataset]) -> Dataset | None:
    return found[0] if found else None


def _groups(item: Dataset | None) -> list[Dataset]:
    if item is None:
        return []
    return [group for keyword in _GROUPS for group in items(item, keyword)]


def _place(sources: list[Dataset], position_from: list[Dataset] | None = None) -> FramePlace:
    position = _number_in(sources if position_from is None else position_from, "ImagePositionPatient", 3)
    slope, intercept = _scale(sources, "RescaleSlope", 1.0), _scale(sources, "RescaleIntercept", 0.0)
    return FramePlace(
        position=position,
        orientation=_number_in(sources, "ImageOrientationPatient", 6),
        spacing=_spacing(sources),
        rescale=(slope or 1.0, intercept),
    )


def _number_in(sources: Iterable[Dataset], keyword: str, count: int) -> tuple[float, ...] | None:
    for source in sources:
        found = numbers(source, keyword, count)
        if found is not None:
            return found
    return None


def _scale(sources: list[Dataset], keyword: str, default: float) -> float:
    """Slope or intercept; NaN where there is one that is not a number, since no other value may stand for it."""
    found = _number_in(sources, keyword, 1)
    if found is not None:
        return found[0]
    return default if not any(is_given(source, keyword) for source in sources) else math.nan


def _spacing(sources: list[Dataset]) -> tuple[float, ...] | None:
    """Pixel spacing in the patient; at the detector it is divided by the magnification, as far as that is known."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        found = _number_in(sources, keyword, 2)
        if found is None or min(found) <= 0:
            continue
        if keyword == "ImagerPixelSpacing":
            magnification = number(sources[-1], "EstimatedRadiographicMagnificationFactor", 1.0)
            found = tuple(value / magnification for value in found) if magnification > 0 else found
        return found
    return None
