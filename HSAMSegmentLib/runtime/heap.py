"""Memory that torch frees and asks for again a moment later stays with the process. No torch.

glibc gives every larger block back to the system at once, and the system clears each page again at the next request.
A network asks for the same megabytes for every batch; clearing them takes up to a third of the time of a bfloat16
product (1024 x 768 by 768 x 3072: 6.7 ms, of which 2.7 ms for the pages of its result).
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Mapping

logger = logging.getLogger(__name__)

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Names of options in glibc's malloc.h."""

_MIB = 2**20
_OPTIONS = {_MMAP_THRESHOLD: 64 * _MIB, _TRIM_THRESHOLD: 512 * _MIB, _TOP_PAD: 16 * _MIB}
"""Blocks from 64 MiB on, such as whole volumes, still go back at once; of the others at most 512 MiB are kept."""

_OPTIONS_UNDER_DASK = {_TRIM_THRESHOLD: 1024 * _MIB, _MMAP_THRESHOLD: 32 * _MIB}
"""The second is glibc's own upper bound."""

_DASK_SETTING = "MALLOC_TRIM_THRESHOLD_"
_USER_SETTINGS = (_DASK_SETTING, "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "LD_PRELOAD", "GLIBC_TUNABLES")


def keep_freed_memory(platform: str = sys.platform) -> bool:
    """Let this process keep what it frees; for processes of ours, not for one that only calls this package.

    Returns:
        Whether it was set. Other systems and C libraries do without, and settings of the user stay.
    """
    if platform != "linux" or any(name in os.environ for name in _USER_SETTINGS):
        return False
    return _set_options(_OPTIONS)


def keep_freed_memory_of_dask() -> bool:
    """Let glibc keep freed memory for the next layer of a network, where Dask told it to give every bit back.

    Dask starts workers with `MALLOC_TRIM_THRESHOLD_=65536`, which is good for tables. A network then gets fresh pages
    for each of its tensors, and that takes as long as the network (Testing/Benchmarks/bench_allocator.py).

    Returns:
        Whether it was set: not without that variable, and not with other C libraries.
    """
    if _DASK_SETTING not in os.environ or os.name != "posix":
        return False
    return _set_options(_OPTIONS_UNDER_DASK)


def _set_options(options: Mapping[int, int]) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        logger.debug("This C library has no mallopt.")
        return False
    return all(mallopt(option, value) == 1 for option, value in options.items())
