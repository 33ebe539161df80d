"""Threads of torch on a machine that does other things: how many, how long they wait, with what priority. No torch.

OpenMP's threads wait for each other at every barrier by spinning. On a quiet machine that is fastest; where other
programs use the cores, a thread that is not running keeps the others spinning, and the same work takes up to thirty
times as long (Testing/Benchmarks/bench_busy.py). So they spin for a bounded time.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path

logger = logging.getLogger(__name__)

SPIN_SETTINGS = {"GOMP_SPINCOUNT": "50000", "KMP_BLOCKTIME": "1"}
"""Rounds of GNU's OpenMP (torch on Linux), milliseconds of Intel's and LLVM's (Windows, macOS)."""

_USER_SETTINGS = ("OMP_WAIT_POLICY", *SPIN_SETTINGS)
_SHORTEST_SAMPLE_SECONDS = 0.05
_WORKER_NICENESS = 10
_WORKER_AUTOGROUP = Path("/proc/self/autogroup")


def limit_spinning(environment: MutableMapping[str, str] | None = None) -> bool:
    """Let threads spin for a bounded time only. OpenMP reads it once, so this comes before torch is imported.

    Args:
        environment: of the process that will import torch; this one's by default.

    Returns:
        Whether it was set: a user's own setting stays, and after torch was imported it is too late.
    """
    if environment is None:
        if "torch" in sys.modules:
            return False
        environment = os.environ
    if any(name in environment for name in _USER_SETTINGS):
        return False
    environment.update(SPIN_SETTINGS)
    return True


def spin_sentence(environment: Mapping[str, str] | None = None) -> str:
    """How long threads spin, for a person."""
    environment = os.environ if environment is None else environment
    found = [f"{name}={environment[name]}" for name in _USER_SETTINGS if name in environment]
    if not found:
        return "Threads spin at every barrier, as long as it takes; set GOMP_SPINCOUNT=50000 before torch is imported."
    return f"Threads wait by {', '.join(found)}."


class FreeCores:
    """How many cores other programs leave free, measured between its creation and the question."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._busy = _busy_seconds()

    def count(self) -> int:
        """Cores that are free: at least 1, at most those that this process may use."""
        elapsed = time.monotonic() - self._started
        if elapsed < _SHORTEST_SAMPLE_SECONDS:
            time.sleep(_SHORTEST_SAMPLE_SECONDS - elapsed)
            elapsed = time.monotonic() - self._started
        used_by_others = max(_busy_seconds() - self._busy, 0.0) / elapsed
        return max(1, min(usable_cores(), round(usable_cores() - used_by_others)))


def usable_cores() -> int:
    """Physical cores that this process may use: of the machine, by affinity, and by the quota of its container."""
    import psutil

    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed, _container_quota()))


def requested_threads() -> int | None:
    """What the user asked for by OMP_NUM_THREADS, None if nothing."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdigit() and int(first) > 0 else None


def set_worker_priority() -> None:
    """Give way to the application, but no more than needed.

    A process below an application of the lowest priority (Slicer on Linux sets itself to nice 19) inherits it. It may
    not raise its own priority without rights. But a process in a session of its own, as the worker is, has a scheduling
    group of its own where the kernel groups by session: there only the group's value counts, which starts at 0.
    """
    import psutil

    if os.name == "nt":
        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        return
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _WORKER_NICENESS)
    except PermissionError:
        logger.info("The worker keeps the priority that it inherited: nice %d", os.nice(0))
    if _WORKER_AUTOGROUP.exists():
        try:
            _WORKER_AUTOGROUP.write_text(str(_WORKER_NICENESS // 2), encoding="ascii")
        except OSError as error:
            logger.info("The priority of the scheduling group could not be set: %s", error)


def priority_sentence() -> str:
    """The priority of this process, for a person."""
    if os.name == "nt":
        import psutil

        return f"Priority class {psutil.Process().nice()!s}."
    group = _WORKER_AUTOGROUP.read_text(encoding="ascii").strip() if _WORKER_AUTOGROUP.exists() else ""
    grouped = f"; scheduling group {group.split()[-1]}" if group else ""
    return f"Nice {os.nice(0)}{grouped}."


def _busy_seconds() -> float:
    """Seconds of all cores that other programs used so far; those of lower priority than this one do not count."""
    import psutil

    times = psutil.cpu_times()
    busy = times.user + times.system + sum(getattr(times, name, 0.0) for name in ("irq", "softirq", "steal"))
    if os.name != "nt" and os.nice(0) > 0:
        busy += getattr(times, "nice", 0.0)
    own = psutil.Process().cpu_times()
    return float(busy - own.user - own.system)


def _container_quota() -> int:
    """Cores that the control group of this process may use; a large number where there is no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return sys.maxsize if quota == "max" else max(1, int(float(quota) / float(period)))
    except (OSError, ValueError):
        return sys.maxsize
