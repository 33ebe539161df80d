"""What all parts of the device check share: the setting, rows of the table, and seconds on a device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from HSAMSegmentLib.runtime.devices import synchronize


@dataclass(frozen=True)
class Setting:
    """Where the check runs and how large it is.

    Attributes:
        device: where.
        quick: small networks and volumes, to try the script.
    """

    device: torch.device
    quick: bool

    @property
    def is_cuda(self) -> bool:
        """Whether there is memory of its own to measure."""
        return self.device.type == "cuda"


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    part: str
    what: str
    result: str
    is_failure: bool = False

    @property
    def markdown(self) -> str:
        """As a line of Markdown."""
        result = f"**FAILED** {self.result}" if self.is_failure else self.result
        return f"| {self.part} | {self.what} | {result.replace('|', '/')} |"


def seconds(setting: Setting, work: Callable[[], object], *, samples: int = 5) -> float:
    """Median seconds of some work, which is done once before for the device to get ready."""
    work()
    found = []
    for _ in range(1 if setting.quick else samples):
        synchronize(str(setting.device))
        started = time.perf_counter()
        work()
        synchronize(str(setting.device))
        found.append(time.perf_counter() - started)
    return median(found)


def matrix_rate(setting: Setting, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a square matrix product."""
    side = 256 if setting.quick else 8192
    left, right = (torch.randn(side, side, device=setting.device, dtype=dtype) for _ in range(2))
    return 2.0 * side**3 / seconds(setting, lambda: left @ right)


def peak_bytes(setting: Setting, work: Callable[[], object]) -> int | None:
    """Most memory that torch held on the device during some work; None where the device has none of its own."""
    if not setting.is_cuda:
        work()
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(setting.device)
    work()
    torch.cuda.synchronize(setting.device)
    return torch.cuda.max_memory_allocated(setting.device)


def gib(count: float | None) -> str:
    """Bytes for a person."""
    return "not measured on a CPU" if count is None else f"{count / 2**30:.2f} GiB"
