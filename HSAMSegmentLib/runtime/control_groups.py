"""Limits that containers and job schedulers put on this process: Linux's control groups, versions 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/proc/self/cgroup")
GROUP_ROOT = Path("/sys/fs/cgroup")


def group_folders(controller: str, groups: Path = GROUPS, root: Path = GROUP_ROOT) -> Iterator[Path]:
    """Folders of the group of this process and of each group around it; some of them may not be there.

    Args:
        controller: "cpu" or "memory".
        groups: lists the groups of this process, one "number:controllers:path" in a line.
        root: where the groups are mounted, version 2 itself or version 1 with a folder for each controller.
    """
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        if line.count(":") < 2:
            continue
        _number, controllers, path = line.split(":", 2)
        if not controllers:
            bases = [root, root / "unified"]
        elif controller in controllers.split(","):
            bases = sorted({root / controllers, root / controller})
        else:
            bases = []
        for base in bases:
            yield from _upward(base, path)


def words_of(file: Path) -> list[str]:
    """The words of a small file, none if it cannot be read."""
    try:
        return file.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []


def free_group_memory(groups: Path = GROUPS, root: Path = GROUP_ROOT) -> float:
    """Bytes that the groups of this process leave to it, infinite without a limit.

    What files were read into counts as free, since the kernel gives it up before it ends a process.
    """
    free = float("inf")
    for folder in group_folders("memory", groups, root):
        for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            numbers = [word for name in (limit, usage) for word in words_of(folder / name) if word.isdigit()]
            if len(numbers) == 2:
                free = min(free, max(0.0, float(numbers[0]) - float(numbers[1]) + _cached(folder)))
    return free


def _cached(folder: Path) -> float:
    """Bytes of files that a group holds and does not use at the moment."""
    words = words_of(folder / "memory.stat")
    counts = dict(zip(words[::2], words[1::2]))
    return float(counts.get("total_inactive_file", counts.get("inactive_file", 0)))


def _upward(base: Path, path: str) -> Iterator[Path]:
    """The folder of a group and those of the groups around it.

    Inside of a container the path may be that outside of it; then only its end, the mounted folder itself, is there.
    """
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for count in range(len(parts), -1, -1):
        yield base.joinpath(*parts[:count])
