"""Exact percentiles of large arrays in little memory, whatever the order of the voxels.

A float32 read as an integer (with its sign handled) sorts like the number itself. Counting the upper and then the lower
16 bits of these integers finds any rank in two passes over the data without sorting or copying the volume; integers of
16 bits need one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BLOCK_VOXELS = 1 << 22
_HALF = 1 << 16


def foreground_percentiles(array: np.ndarray, percentiles: tuple[float, ...]) -> tuple[float, ...]:
    """Percentiles of the values above the lowest value, linearly interpolated between ranks.

    The lowest value is what scans are padded with, so that padding changes nothing; of a constant array it is the
    answer itself.

    Args:
        array: finite values of three dimensions, any type; compared as float32.
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
    """Integers that sort like the values, block by block."""
    for block in _blocks(array):
        # Adding zero turns -0.0 into 0.0, which would sort apart.
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
