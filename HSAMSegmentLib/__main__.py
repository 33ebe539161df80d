"""`python -m HSAMSegmentLib`, and the program `hsam-segment`, which is the same."""

from __future__ import annotations

import sys

from HSAMSegmentLib.errors import CancelledError


def main() -> int:
    """Run the program; Ctrl-C while it is still being read from the disk is answered like any later one."""
    try:
        from HSAMSegmentLib.cli import main as run

        return run()
    except KeyboardInterrupt:
        sys.stderr.write("hsam-segment: Cancelled.\n")
        return CancelledError.exit_code


if __name__ == "__main__":
    sys.exit(main())
