"""`python -m HSAMSegmentLib`, and the program `hsam-segment`, which is the same."""

from __future__ import annotations

import os
import sys

from HSAMSegmentLib.errors import CancelledError


def main() -> int:
    """Run the program; Ctrl-C while it is still being read from the disk is answered like any later one."""
    try:
        from HSAMSegmentLib.cli.main import main as run
        from HSAMSegmentLib.runtime.heap import keep_freed_memory

        keep_freed_memory()
        return _ended(run())
    except KeyboardInterrupt:
        sys.stderr.write("hsam-segment: Cancelled.\n")
        return CancelledError.exit_code


def _ended(code: int) -> int:
    """The exit code; where interrupted work is still inside of a library, the process ends here and now."""
    from HSAMSegmentLib.runtime.progress import is_work_left_behind

    if is_work_left_behind():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
