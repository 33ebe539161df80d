"""`python -m HSAMSegmentLib`: the same as the program `hsam-segment`."""

from __future__ import annotations

import sys

from HSAMSegmentLib.cli import main

if __name__ == "__main__":
    sys.exit(main())
