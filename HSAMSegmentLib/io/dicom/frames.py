"""The grid of the frames of one multi-frame DICOM file, from what its functional groups say of each frame.

ITK places frames evenly in any case, so what it says of them is not used.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.io.dicom.header import DicomHeader
from HSAMSegmentLib.io.dicom.placement import usable_orientation
from HSAMSegmentLib.runtime.serialization import triple

_STEP_TOLERANCE = 0.02
_SAME_PLACE_MM = 1e-3
_SAME_NUMBER = 1e-4
ADVICE = "convert it with dcm2niix and open the NIfTI file"


def geometry_of_frames(header: DicomHeader) -> Geometry:
    """The grid of the frames of a file, in their order.

    Raises:
        VolumeError: if a frame does not say where it is, or if the frames, in their order, are not an even stack.
    """
    places = header.frame_places
    positions = [place.position for place in places]
    orientation = usable_orientation(places[0].orientation) if places else None
    spacings = [place.spacing for place in places]
    known = None not in positions and _all_same([place.orientation for place in places]) and _all_same(spacings)
    spacing = spacings[0] if spacings else None
    if not known or orientation is None or spacing is None:
        raise VolumeError(
            f'"{header.path.name}" holds {header.frames} frames and does not say in a readable way where each of them '
            f"is; {ADVICE}."
        )
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    step = _even_step(np.array(positions), np.cross(row, column), header)
    distance = float(np.linalg.norm(step))
    return Geometry(
        size=(*header.size, header.frames),
        spacing_mm=(spacing[1], spacing[0], distance),
        origin_mm=triple(positions[0] or ()),
        direction=tuple(np.array([row, column, step / distance]).T.ravel().tolist()),
    )


def _all_same(values: list[tuple[float, ...] | None]) -> bool:
    return None not in values and bool(values) and bool(np.ptp(cast(Any, values), axis=0).max() < _SAME_NUMBER)


def _even_step(positions: np.ndarray, normal: np.ndarray, header: DicomHeader) -> np.ndarray:
    """LPS mm from one frame to the next."""
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    expected = positions[0] + np.arange(len(positions))[:, np.newaxis] * step
    deviation = np.abs(positions - expected).max()
    across = abs(float(step @ normal))
    if across < _SAME_PLACE_MM or across < np.linalg.norm(step) / 2 or deviation > _STEP_TOLERANCE * across:
        raise VolumeError(
            f'The {header.frames} frames of "{header.path.name}" are not an even stack in their order: slices are '
            f"missing, mixed up, or of several time points or echoes; {ADVICE}."
        )
    array: np.ndarray = step
    return array
