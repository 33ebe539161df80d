"""Scale intensities to 0 to 1 by a model's rule, and warn about scans unlike those that the model expects.

Percentiles are exact, independent of the voxel order, and need little memory. Read as an integer (with its sign
handled), a float32 sorts like the number itself. Counting the upper and then the lower 16 bits of these integers finds
any rank in two passes over the data without sorting or copying the volume; 16-bit integers need one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.orientation import slice_axis, slice_frame
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.preprocess.rules import IntensityRule, SliceRule
from HSAMSegmentLib.runtime.serialization import pair

_BLOCK_VOXELS = 1 << 22
_HALF = 1 << 16

_THICK_SLICES_MM = 12.0
_LEAST_PART_IN_WINDOW = 0.02
_HIGHEST_FAT_HU = -50.0


def foreground_percentiles(array: np.ndarray, percentiles: tuple[float, ...]) -> tuple[float, ...]:
    """Percentiles of the values above the lowest value, linearly interpolated between ranks.

    Scans are padded with their lowest value, so leaving it out makes the result independent of padding; for a constant
    array the result is that value.

    Args:
        array: finite values with three dimensions, any type; compared as float32.
        percentiles: each 0 to 100.
    """
    lowest = array.min()
    below = int(np.count_nonzero(array == lowest))
    count = array.size - below
    if count == 0:
        return (float(lowest),) * len(percentiles)
    positions = [below + (count - 1) * percentile / 100.0 for percentile in percentiles]
    ranks = sorted({int(np.floor(p)) for p in positions} | {int(np.ceil(p)) for p in positions})
    find = _small_integers_of_rank if array.dtype.kind in "iu" and array.dtype.itemsize <= 2 else _floats_of_rank
    values = dict(zip(ranks, find(array, ranks)))
    return tuple(_interpolate(values, position) for position in positions)


def _interpolate(values: dict[int, float], position: float) -> float:
    lower, upper = values[int(np.floor(position))], values[int(np.ceil(position))]
    return float(lower + (upper - lower) * (position - np.floor(position)))


def _small_integers_of_rank(array: np.ndarray, ranks: list[int]) -> list[float]:
    offset = int(np.iinfo(array.dtype).min)
    counts = np.zeros(_HALF, dtype=np.int64)
    for block in _blocks(array):
        counts += np.bincount(block.astype(np.int64).reshape(-1) - offset, minlength=_HALF)
    return [float(index + offset) for index in np.searchsorted(np.cumsum(counts), ranks, side="right")]


def _floats_of_rank(array: np.ndarray, ranks: list[int]) -> list[float]:
    upper_counts = np.zeros(_HALF, dtype=np.int64)
    for keys in _key_blocks(array):
        upper_counts += np.bincount(keys >> 16, minlength=_HALF)
    cumulated = np.cumsum(upper_counts)
    uppers = np.searchsorted(cumulated, ranks, side="right")
    lower_counts = {int(upper): np.zeros(_HALF, dtype=np.int64) for upper in uppers}
    for keys in _key_blocks(array):
        for upper, counts in lower_counts.items():
            counts += np.bincount(keys[keys >> 16 == upper] & 0xFFFF, minlength=_HALF)
    before = cumulated - upper_counts
    return [
        _value_of_key(upper, int(np.searchsorted(np.cumsum(lower_counts[upper]), rank - before[upper], side="right")))
        for upper, rank in zip(uppers.tolist(), ranks)
    ]


def _key_blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Sort keys of the values (integers in the same order), block by block."""
    for block in _blocks(array):
        # Adding zero turns -0.0 into 0.0, which would sort differently.
        bits = (np.ascontiguousarray(block, dtype=np.float32) + np.float32(0.0)).view(np.uint32).reshape(-1)
        yield np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    rows = max(_BLOCK_VOXELS * len(array) // array.size, 1)
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


def _value_of_key(upper: int, lower: int) -> float:
    key = (upper << 16) | lower
    bits = key & 0x7FFFFFFF if key >> 31 else ~key & 0xFFFFFFFF
    return float(np.array([bits], dtype=np.uint32).view(np.float32)[0])


class ModelExpectations(Protocol):
    """The parts of a model's manifest that describe its input."""

    @property
    def modality(self) -> str:
        """ "CT", "MR" or ""."""

    @property
    def intensity(self) -> IntensityRule:
        """How intensities are scaled."""

    @property
    def slices(self) -> SliceRule:
        """How slices are cut."""

    @property
    def field_of_view_mm(self) -> tuple[float, float] | None:
        """Smallest and largest field of view, None if unknown."""


@dataclass(frozen=True)
class IntensityScaler:
    """Scales any part of a volume, with bounds measured on the whole volume.

    Attributes:
        bounds: intensities that map to 0 and 1, or None if each slice has its own.
    """

    bounds: tuple[float, float] | None

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        """Scale slices [..., rows, columns] to float32 in 0 to 1, same shape; constant slices become 0."""
        values = np.asarray(slices, dtype=np.float32)
        if self.bounds is not None:
            low, high = np.float32(self.bounds[0]), np.float32(self.bounds[1])
        else:
            low, high = values.min(axis=(-2, -1), keepdims=True), values.max(axis=(-2, -1), keepdims=True)
        span = high - low
        scaled = np.clip(values, low, high) - low
        scaled /= np.where(span > 0, span, np.float32(1.0))
        array: np.ndarray = scaled
        return array


def intensity_scaler(array: np.ndarray, rule: IntensityRule) -> IntensityScaler:
    """Create a scaler for a volume, measuring what the rule needs.

    Args:
        array: the whole volume, with its axes in any order.
        rule: "window" measures nothing; "percentile" takes percentiles over all voxels except those of the lowest value
            (the padding; see `foreground_percentiles`); "slice_minmax" measures each slice when it is scaled.

    Raises:
        RequestError: if the rule is unknown.
    """
    if rule.kind == "window":
        return IntensityScaler(rule.window_hu)
    if rule.kind == "slice_minmax":
        return IntensityScaler(None)
    if rule.kind == "percentile":
        return IntensityScaler(pair(foreground_percentiles(array, rule.percentiles)))
    raise RequestError(f'There is no intensity rule "{rule.kind}"; the model needs a newer version of HSAMSegment.')


def scale_intensity(source: Volume | np.ndarray, rule: IntensityRule, *, plane: str = "acquisition") -> np.ndarray:
    """Scale a volume to float32 in 0 to 1, same shape.

    Args:
        source: a volume, or an array with slices along its first axis.
        rule: the intensity rule.
        plane: slice plane of a volume for "slice_minmax".

    Raises:
        RequestError: if the rule or the plane is unknown.
    """
    if not isinstance(source, Volume):
        return intensity_scaler(source, rule)(source)
    scaler = intensity_scaler(source.array, rule)
    axis = 2 - slice_axis(source.geometry, plane)
    return np.moveaxis(scaler(np.moveaxis(source.array, axis, 0)), 0, axis)


def plausibility_warnings(volume: Volume, expected: ModelExpectations) -> tuple[str, ...]:
    """Return warnings about a volume that is an unlikely input of a model; none if nothing is unusual.

    Args:
        volume: the scan.
        expected: the model's manifest.
    """
    low, high = float(volume.array.min()), float(volume.array.max())
    if low == high:
        return (f"All voxels have the same value ({low:g}); there is nothing to be found.",)
    found = [
        _modality_warning(volume, expected),
        _hounsfield_warning(volume, expected, low),
        *_grid_warnings(volume, expected),
    ]
    return tuple(warning for warning in found if warning)


def _modality_warning(volume: Volume, expected: ModelExpectations) -> str:
    if not volume.modality or not expected.modality or volume.modality == expected.modality:
        return ""
    return f"This is a {volume.modality} scan and the model was made for {expected.modality}; do not trust the result."


def _hounsfield_warning(volume: Volume, expected: ModelExpectations, lowest: float) -> str:
    if expected.intensity.kind != "window" or volume.modality == "MR":
        return ""
    low, high = expected.intensity.window_hu
    if lowest > _HIGHEST_FAT_HU:
        return (
            f"The values do not look like Hounsfield units (the lowest is {lowest:g}; fat and air are below "
            f"{_HIGHEST_FAT_HU:g}); the model expects CT in HU."
        )
    inside = np.count_nonzero((volume.array > low) & (volume.array < high)) / volume.array.size
    if inside < _LEAST_PART_IN_WINDOW:
        return (
            f"Only {100 * inside:.1f} % of the voxels are in the model's window of {low:g} to {high:g} HU; "
            "the values are probably no Hounsfield units."
        )
    return ""


def _grid_warnings(volume: Volume, expected: ModelExpectations) -> list[str]:
    frame = slice_frame(volume.geometry, expected.slices.plane)
    warnings = []
    if expected.field_of_view_mm is not None:
        height, width = frame.field_of_view_mm
        smallest, largest = expected.field_of_view_mm
        if not smallest <= float(np.sqrt(height * width)) <= largest:
            warnings.append(
                f"The slices show {height:.0f} x {width:.0f} mm; the model was made for about {smallest:.0f} to "
                f"{largest:.0f} mm."
            )
    if frame.stack_shape[0] == 1:
        warnings.append("The volume has one slice only; the volumes in mL are those of this slice.")
    elif frame.slice_spacing_mm > _THICK_SLICES_MM:
        warnings.append(f"The slices are {frame.slice_spacing_mm:.1f} mm apart; small structures may fall between.")
    return warnings
