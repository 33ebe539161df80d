"""Where the frames of one multi-frame DICOM file are, which ITK does not tell: it places them evenly in any case.

The positions are nested in sequences, one item per frame and in the order of the frames. The file is searched for their
elements as the standard's two little-endian encodings write them. A search can miss some or find too many, and then the
number does not match and the file is refused; it never places a frame on a guess.
"""

from __future__ import annotations

import mmap
import re
import struct
from pathlib import Path

import numpy as np

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.io.dicom_header import DicomHeader, numbers_of

_POSITION, _ORIENTATION, _SPACING = (0x0020, 0x0032), (0x0020, 0x0037), (0x0028, 0x0030)
_SLOPE, _INTERCEPT = (0x0028, 0x1053), (0x0028, 0x1052)
_STEP_TOLERANCE = 0.02
_SAME_PLACE_MM = 1e-3
_SAME_NUMBER = 1e-4
_ADVICE = "convert it with dcm2niix and open the NIfTI file"


def geometry_of_frames(header: DicomHeader) -> Geometry:
    """The grid of the frames of a file, in their order.

    Raises:
        VolumeError: if a frame does not say where it is, or if the frames, in their order, are no even stack.
    """
    positions = _values(header.path, _POSITION, 3)
    orientations = _values(header.path, _ORIENTATION, 6)
    spacings = _values(header.path, _SPACING, 2)
    if len(positions) != header.frames or not _all_same(orientations) or not _all_same(spacings):
        raise VolumeError(
            f'"{header.path.name}" holds {header.frames} frames and does not say in a readable way where each of them '
            f"is; {_ADVICE}."
        )
    for tag in (_SLOPE, _INTERCEPT):
        if len(set(_values(header.path, tag, 1))) > 1:
            raise VolumeError(f'The frames of "{header.path.name}" are scaled differently; {_ADVICE}.')
    row, column = np.array(orientations[0][:3]), np.array(orientations[0][3:])
    step = _even_step(np.array(positions), np.cross(row, column), header)
    distance = float(np.linalg.norm(step))
    return Geometry(
        size=(*header.size, header.frames),
        spacing_mm=(spacings[0][1], spacings[0][0], distance),
        origin_mm=positions[0],
        direction=tuple(np.array([row, column, step / distance]).T.ravel().tolist()),
    )


def _all_same(values: list[tuple[float, ...]]) -> bool:
    return bool(values) and bool(np.ptp(values, axis=0).max() < _SAME_NUMBER)


def _even_step(positions: np.ndarray, normal: np.ndarray, header: DicomHeader) -> np.ndarray:
    """LPS mm from one frame to the next."""
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    expected = positions[0] + np.arange(len(positions))[:, np.newaxis] * step
    deviation = np.abs(positions - expected).max()
    across = abs(float(step @ normal))
    if across < _SAME_PLACE_MM or across < np.linalg.norm(step) / 2 or deviation > _STEP_TOLERANCE * across:
        raise VolumeError(
            f'The {header.frames} frames of "{header.path.name}" are no even stack in their order: slices are missing, '
            f"mixed up, or of several time points or echoes; {_ADVICE}."
        )
    return step


def _values(path: Path, tag: tuple[int, int], count: int) -> list[tuple[float, ...]]:
    """The values of a decimal element (`count` numbers) wherever it occurs in the file, in that order."""
    # After the tag: "DS" and 16 bits of length (explicit), or 32 bits of length (implicit).
    pattern = re.compile(re.escape(struct.pack("<HH", *tag)) + rb"(?:DS(..)|(..)\0\0)", re.DOTALL)
    found = []
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for match in pattern.finditer(content):
            length = struct.unpack("<H", match[1] or match[2])[0]
            text = content[match.end() : match.end() + length].decode("ascii", "replace")
            numbers = numbers_of(text.strip("\0 "), count)
            if numbers is not None:
                found.append(numbers)
    return found
