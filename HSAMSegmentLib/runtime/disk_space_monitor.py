"""Whether the next training state still fits on the disk of a training run. No torch here.

A training that cannot save any more would go on for nothing: what it learns from then on is lost with its end.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from HSAMSegmentLib.runtime.atomic_files import TEMPORARY_SUFFIX

STATE_COPIES = 5
"""Of the weights that learn, in 4 bytes: network, average, best state, and the two moments of the optimizer."""
SECOND_STATE_COPIES = 2
"""More of them where a second network learns another plane: it has no best state, the first one no moments by then."""
_CHECKS = 2


class DiskSpaceMonitor:
    """Looks at the free space now and then."""

    def __init__(self, folder: Path, learning_weights: int, *, has_second: bool = False) -> None:
        """
        Args:
            folder: of the training run.
            learning_weights: numbers in the network that learn.
            has_second: whether a second network will learn another plane.
        """
        self._folder = folder
        copies = STATE_COPIES + (SECOND_STATE_COPIES if has_second else 0)
        self.needed_bytes = copies * 4 * learning_weights
        self._short_checks = 0

    def check(self) -> bool:
        """Whether there was too little room now and at the last check, so that no passing file is the reason."""
        writing = sum(_size(path) for path in self._folder.glob(f".*{TEMPORARY_SUFFIX}*"))
        is_short = writing + shutil.disk_usage(self._folder).free < self.needed_bytes
        self._short_checks = self._short_checks + 1 if is_short else 0
        return self._short_checks >= _CHECKS


def _size(path: Path) -> int:
    """Bytes of a file; one that was renamed a moment ago takes no room beside itself."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
