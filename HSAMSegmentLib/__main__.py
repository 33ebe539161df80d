"""Entry point of `python -m HSAMSegmentLib` and of the program `hsam-segment`."""

from __future__ import annotations

import os
import sys

from HSAMSegmentLib.errors import CancelledError


def main() -> int:
    """Run the program; handle Ctrl-C during the imports like a later one."""
    try:
        from HSAMSegmentLib.cli.main import main as run
        from HSAMSegmentLib.runtime.heap import keep_freed_memory

        keep_freed_memory()
        return _ended(run())
    except KeyboardInterrupt:
        sys.stderr.write("hsam-segment: Cancelled.\n")
        return CancelledError.exit_code


def _ended(code: int) -> int:
    """Return the exit code; end the process at once if abandoned work is still running inside a library."""
    from HSAMSegmentLib.runtime.progress import is_work_left_behind

    if is_work_left_behind():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
