"""Manage torch's threads on a busy machine: count free cores, and bound spin waiting. No torch here.

OpenMP threads spin while waiting for each other at every barrier. On an idle machine that is fastest; if other programs
use the cores, a descheduled thread keeps the others spinning, and the same work takes up to thirty times as long
(Testing/Benchmarks/bench_busy.py). So spinning is bounded.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from HSAMSegmentLib.runtime.control_groups import GROUP_ROOT, GROUPS, group_folders, words_of

logger = logging.getLogger(__name__)

SPIN_SETTINGS = {"GOMP_SPINCOUNT": "50000", "KMP_BLOCKTIME": "1"}
"""Rounds for GNU's OpenMP (torch on Linux), milliseconds for Intel's and LLVM's (Windows, macOS)."""

_WAIT_POLICY = "OMP_WAIT_POLICY"
"""The user's wait policy, for every OpenMP: if given, nothing else is set."""

_USER_SETTINGS = (_WAIT_POLICY, *SPIN_SETTINGS)
_WORKER_NICENESS = {"darwin": 5}
"""By platform; any other uses the common one."""

_USUAL_WORKER_NICENESS = 10
_WORKER_AUTOGROUP = Path("/proc/self/autogroup")

_SHORTEST_SAMPLE_SECONDS = 0.05
_ONLINE = Path("/sys/devices/system/cpu/online")


def limit_spinning(environment: MutableMapping[str, str] | None = None) -> bool:
    """Bound the time that threads spin. OpenMP reads it once, so call this before importing torch.

    Args:
        environment: environment of the process that will import torch; default: this one's.

    Returns:
        Whether something was set: user settings are respected, a user's wait policy rules out both, and after torch was
        imported it is too late.
    """
    if environment is None:
        if "torch" in sys.modules:
            return False
        environment = os.environ
    missing = {name: value for name, value in SPIN_SETTINGS.items() if name not in environment}
    if _WAIT_POLICY in environment or not missing:
        return False
    environment.update(missing)
    return True


def spin_sentence(environment: Mapping[str, str] | None = None) -> str:
    """Describe how long threads spin."""
    environment = os.environ if environment is None else environment
    found = [f"{name}={environment[name]}" for name in _USER_SETTINGS if name in environment]
    if not found:
        return "Threads spin at every barrier, as long as it takes; set GOMP_SPINCOUNT=50000 before torch is imported."
    return f"Threads wait by {', '.join(found)}."


def requested_threads() -> int | None:
    """The user's OMP_NUM_THREADS, or None."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdigit() and int(first) > 0 else None


def worker_niceness(platform: str = sys.platform) -> int:
    """Nice value of a worker: below the application, above idle-priority programs."""
    return _WORKER_NICENESS.get(platform, _USUAL_WORKER_NICENESS)


def set_worker_priority() -> None:
    """Yield to the application, but no more than needed.

    A process started by an application of the lowest priority (Slicer on Linux sets itself to nice 19) inherits that,
    and cannot raise its own priority without privileges. But a process in its own session, as the worker is, has its
    own scheduling group if the kernel groups by session: there only the group's value counts, which starts at 0.
    """
    import psutil

    if os.name == "nt":
        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        return
    try:
        os.setpriority(os.PRIO_PROCESS, 0, worker_niceness())
    except PermissionError:
        logger.info("The worker keeps the priority that it inherited: nice %d", os.nice(0))
    if _WORKER_AUTOGROUP.exists():
        try:
            _WORKER_AUTOGROUP.write_text(str(worker_niceness() // 2), encoding="ascii")
        except OSError as error:
            logger.info("The priority of the scheduling group could not be set: %s", error)


def priority_sentence() -> str:
    """Describe the priority of this process."""
    if os.name == "nt":
        import psutil

        return f"Priority class {psutil.Process().nice()!s}."
    group = _WORKER_AUTOGROUP.read_text(encoding="ascii").strip() if _WORKER_AUTOGROUP.exists() else ""
    grouped = f"; scheduling group {group.split()[-1]}" if group else ""
    return f"Nice {os.nice(0)}{grouped}."


class FreeCores:
    """Measures how many cores other programs leave free, between its creation and the query.

    Create it when a request arrives and query it when threads are needed, so that sampling takes no extra time.
    """

    def __init__(self) -> None:
        self._cpus = allowed_cpus()
        self._started = time.monotonic()
        self._busy = _seconds_of_others(self._cpus)

    def count(self) -> int:
        """Free cores: at least 1, at most those that this process may use."""
        elapsed = time.monotonic() - self._started
        if elapsed < _SHORTEST_SAMPLE_SECONDS:
            time.sleep(_SHORTEST_SAMPLE_SECONDS - elapsed)
            elapsed = time.monotonic() - self._started
        used_by_others = max(_seconds_of_others(self._cpus) - self._busy, 0.0) / elapsed
        return max(1, min(usable_cores(), round(_cores_by_affinity() - used_by_others)))


def usable_cores() -> int:
    """Physical cores that this process may use: limited by the machine, the affinity, and the container's quota."""
    return max(1, min(_cores_by_affinity(), container_quota()))


def allowed_cpus() -> frozenset[int] | None:
    """Numbers of the logical processors that this process may run on; None without affinity support."""
    import psutil

    ask = getattr(psutil.Process(), "cpu_affinity", None)
    return frozenset(ask()) if ask is not None else None


def container_quota(groups: Path = GROUPS, root: Path = GROUP_ROOT) -> int:
    """Cores that the control group of this process, and each group around it, may use; `sys.maxsize` if unlimited.

    Args:
        groups: file that lists the process's groups, one "number:controllers:path" per line.
        root: mount point of the groups: version 2 itself, or version 1 with a folder per controller.
    """
    limits = [limit for folder in group_folders("cpu", groups, root) for limit in _limits(folder)]
    return max(1, int(min(limits))) if limits else sys.maxsize


def _limits(folder: Path) -> Iterator[float]:
    yield from _ratio(words_of(folder / "cpu.max"))
    yield from _ratio(words_of(folder / "cpu.cfs_quota_us") + words_of(folder / "cpu.cfs_period_us"))


def _ratio(words: list[str]) -> Iterator[float]:
    """Quota over period; nothing for "max" (version 2), -1 (version 1) and missing files."""
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]) > 0:
        yield int(words[0]) / int(words[1])


def _cores_by_affinity() -> int:
    import psutil

    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    cpus = allowed_cpus()
    return min(physical, len(cpus)) if cpus else physical


def _seconds_of_others(cpus: frozenset[int] | None) -> float:
    """CPU seconds that other programs have used on these processors.

    Programs of lower priority are excluded, since they yield.
    """
    counts_nice = os.name == "nt" or os.nice(0) > 0
    busy = sum(_busy_seconds(times, counts_nice) for times in _times_of(cpus))
    return busy - _own_seconds(counts_nice)


def _times_of(cpus: frozenset[int] | None) -> list[Any]:
    """CPU times of some logical processors; of all if their numbers are unknown."""
    import psutil

    times = psutil.cpu_times(percpu=True)
    numbers = _online_cpus() or list(range(len(times)))
    if cpus is None or len(numbers) != len(times) or not cpus <= set(numbers):
        found: list[Any] = times
        return found
    return [item for number, item in zip(numbers, times) if number in cpus]


def _online_cpus(file: Path = _ONLINE) -> list[int]:
    """Numbers of the online processors, which Linux lists as "0-3,6"; empty if unknown."""
    numbers: list[int] = []
    for part in ",".join(words_of(file)).split(","):
        first, _dash, last = part.partition("-")
        if first.isdigit():
            numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def _busy_seconds(times: Any, counts_nice: bool) -> float:
    names = ("user", "system", "irq", "softirq", "steal", *(("nice",) if counts_nice else ()))
    return sum(getattr(times, name, 0.0) for name in names)


def _own_seconds(counts_nice: bool) -> float:
    """CPU seconds used by this process and its descendants, including ended ones."""
    import psutil

    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        try:
            if counts_nice or process.nice() <= 0:
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        except psutil.Error:  # it just ended
            continue
    return total
