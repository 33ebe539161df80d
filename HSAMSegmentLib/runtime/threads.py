"""Threads of torch on a machine that does other things: how many, how long they wait, with what priority. No torch.

OpenMP's threads wait for each other at every barrier by spinning. On a quiet machine that is fastest; where other
programs use the cores, a thread that is not running keeps the others spinning, and the same work takes up to thirty
times as long (Testing/Benchmarks/bench_busy.py). So they spin for a bounded time.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

logger = logging.getLogger(__name__)

SPIN_SETTINGS = {"GOMP_SPINCOUNT": "50000", "KMP_BLOCKTIME": "1"}
"""Rounds of GNU's OpenMP (torch on Linux), milliseconds of Intel's and LLVM's (Windows, macOS)."""

_WAIT_POLICY = "OMP_WAIT_POLICY"
"""The user's word on how threads wait, for every OpenMP: beside it nothing is set."""

_USER_SETTINGS = (_WAIT_POLICY, *SPIN_SETTINGS)
_WORKER_NICENESS = {"darwin": 5}
"""By platform; else the usual one."""

_USUAL_WORKER_NICENESS = 10
_WORKER_AUTOGROUP = Path("/proc/self/autogroup")


def limit_spinning(environment: MutableMapping[str, str] | None = None) -> bool:
    """Let threads spin for a bounded time only. OpenMP reads it once, so this comes before torch is imported.

    Args:
        environment: of the process that will import torch; this one's by default.

    Returns:
        Whether something was set: each setting of the user stays, a wait policy of the user rules out both, and after
        torch was imported it is too late.
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
    """How long threads spin, for a person."""
    environment = os.environ if environment is None else environment
    found = [f"{name}={environment[name]}" for name in _USER_SETTINGS if name in environment]
    if not found:
        return "Threads spin at every barrier, as long as it takes; set GOMP_SPINCOUNT=50000 before torch is imported."
    return f"Threads wait by {', '.join(found)}."


def requested_threads() -> int | None:
    """What the user asked for by OMP_NUM_THREADS, None if nothing."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdigit() and int(first) > 0 else None


def worker_niceness(platform: str = sys.platform) -> int:
    """The nice value of a worker: below the application, above what runs when nothing else does."""
    return _WORKER_NICENESS.get(platform, _USUAL_WORKER_NICENESS)


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
        os.setpriority(os.PRIO_PROCESS, 0, worker_niceness())
    except PermissionError:
        logger.info("The worker keeps the priority that it inherited: nice %d", os.nice(0))
    if _WORKER_AUTOGROUP.exists():
        try:
            _WORKER_AUTOGROUP.write_text(str(worker_niceness() // 2), encoding="ascii")
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
