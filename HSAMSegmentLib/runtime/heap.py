"""Keep memory that torch frees and soon reallocates in the process. No torch.

glibc returns every larger block to the system at once, and the system clears each page again on reallocation. A network
allocates the same megabytes for every batch; clearing them takes up to a third of the time of a bfloat16 product
(1024 x 768 by 768 x 3072: 6.7 ms, 2.7 ms of it for the pages of the result).
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Mapping

logger = logging.getLogger(__name__)

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Option names from glibc's malloc.h."""

_MIB = 2**20
_OPTIONS = {_MMAP_THRESHOLD: 64 * _MIB, _TRIM_THRESHOLD: 512 * _MIB, _TOP_PAD: 16 * _MIB}
"""Blocks from 64 MiB on, such as whole volumes, are still returned at once; of the others at most 512 MiB stay."""

_OPTIONS_UNDER_DASK = {_TRIM_THRESHOLD: 1024 * _MIB, _MMAP_THRESHOLD: 32 * _MIB}
"""The second value is glibc's own upper bound."""

_DASK_SETTING = "MALLOC_TRIM_THRESHOLD_"
_USER_SETTINGS = (_DASK_SETTING, "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "LD_PRELOAD", "GLIBC_TUNABLES")


def keep_freed_memory(platform: str = sys.platform) -> bool:
    """Make this process keep freed memory; for our own processes, not for programs that merely import this package.

    Returns:
        Whether it was set. Other systems and C libraries are unaffected, and user settings are respected.
    """
    if platform != "linux" or any(name in os.environ for name in _USER_SETTINGS):
        return False
    return _set_options(_OPTIONS)


def keep_freed_memory_of_dask() -> bool:
    """Let glibc keep freed memory for the next layer of a network, although Dask told it to return everything.

    Dask starts workers with `MALLOC_TRIM_THRESHOLD_=65536`, which suits tables. A network then gets fresh pages for
    each of its tensors, which takes as long as the network itself (Testing/Benchmarks/bench_allocator.py).

    Returns:
        Whether it was set: only with that variable, and only with glibc.
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
