"""CT or not, told from the gray values alone, for files that do not say."""

from __future__ import annotations

import numpy as np

_SAMPLES = 500_000
_AIR_HU = (-1100.0, -850.0)
_SOFT_TISSUE_HU = (-200.0, 300.0)
_LOWEST_CT_HU = -4100.0
_HIGHEST_CT_HU = 32767.0


def guess_modality(array: np.ndarray) -> str:
    """ "CT" if the values can only be Hounsfield units, else "".

    That is: air (around -1000) and soft tissue (around 0) both fill a good part of the volume, and nothing is outside
    of what a CT stores. There is no sure sign of MR: a scan without negative values may be CT with an offset.
    """
    sample = every_nth_value(array, _SAMPLES).astype(np.float64)
    if sample.size == 0 or sample.min() < _LOWEST_CT_HU or sample.max() > _HIGHEST_CT_HU:
        return ""
    air = np.mean((sample >= _AIR_HU[0]) & (sample <= _AIR_HU[1]))
    soft = np.mean((sample >= _SOFT_TISSUE_HU[0]) & (sample <= _SOFT_TISSUE_HU[1]))
    return "CT" if air > 0.01 and soft > 0.02 else ""


def every_nth_value(array: np.ndarray, most: int) -> np.ndarray:
    """At most about `most` values of an array, evenly taken in memory order; all of them when there are fewer.

    The step is odd and not a multiple of small numbers, so that the sample does not run along one column of the image.
    """
    step = max(array.size // most, 1)
    while step > 1 and any(step % prime == 0 for prime in (2, 3, 5, 7)):
        step += 1
    return array.reshape(-1)[::step] if array.flags.c_contiguous else array.ravel()[::step]
