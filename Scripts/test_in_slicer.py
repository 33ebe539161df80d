"""Run the module's self test in a real 3D Slicer, named by the environment variable SLICER_EXECUTABLE.

Without it the script says so and succeeds. Returns Slicer's exit code, 0 if all tests passed or were skipped (each
skip is in the output with its reason).
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

MODULE = Path(__file__).resolve().parents[1] / "HSAMSegment"
VARIABLE = "SLICER_EXECUTABLE"
LONGEST_SECONDS = 1800

logger = logging.getLogger("test_in_slicer")


def slicer_command(executable: str) -> list[str]:
    """The command line that runs the self test without a window."""
    code = f"import slicer.testing; slicer.testing.runUnitTest([{str(MODULE)!r}], 'HSAMSegment')"
    options = ["--no-splash", "--no-main-window", "--testing", "--additional-module-paths", str(MODULE)]
    return [executable, *options, "--python-code", code]


def main() -> int:
    """Run the self test; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    executable = os.environ.get(VARIABLE, "")
    if not executable:
        logger.info("skipped: %s names no Slicer; set it to the path of the program to run the self test.", VARIABLE)
        return 0
    if not Path(executable).is_file():
        logger.error("%s names '%s', and there is no such file.", VARIABLE, executable)
        return 2
    try:
        return subprocess.run(slicer_command(executable), timeout=LONGEST_SECONDS, check=False).returncode
    except subprocess.TimeoutExpired:
        logger.error("failed: Slicer did not end within %d minutes.", LONGEST_SECONDS // 60)
        return 1


if __name__ == "__main__":
    sys.exit(main())
