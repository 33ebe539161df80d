"""What the C library does with memory that is given back."""

from __future__ import annotations

import ctypes
import os

_TRIM_VARIABLE = "MALLOC_TRIM_THRESHOLD_"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt`, from glibc's malloc.h."""

_TRIM_BYTES = 1 << 30
_MMAP_BYTES = 32 << 20
"""glibc's own upper bound."""


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next layer of a network, where Dask told it to give every bit back.

    Dask starts workers with `MALLOC_TRIM_THRESHOLD_=65536`, which is good for tables. A network then gets fresh pages
    for each of its tensors, and that takes as long as the network (Testing/Benchmarks/bench_allocator.py).

    Returns:
        Whether something was set: not without that variable, and not with other C libraries.
    """
    if _TRIM_VARIABLE not in os.environ or os.name != "posix":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)) and bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES))
