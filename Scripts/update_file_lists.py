"""Write HSAMSegment/LibraryFiles.cmake: every file of the library that an installed extension needs.

Run it after adding, renaming or deleting a file of `HSAMSegmentLib` or `Resources`; a test compares list and tree.
The troubleshooting page is included, since errors refer to it even without internet.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TARGET = REPOSITORY / "HSAMSegment" / "LibraryFiles.cmake"
HELP_PAGE = "Docs/troubleshooting.md"
LEFT_OUT = ("Resources/Screenshots/",)
"""Pictures for the README, which an installed extension does not need."""


def library_files() -> tuple[list[str], list[str]]:
    """Scripts and resources tracked by git, as paths from the repository's root."""
    command = ["git", "ls-files", "--cached", "HSAMSegmentLib", "Resources", HELP_PAGE]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
    paths = sorted({path for path in listed if (REPOSITORY / path).is_file() and not path.startswith(LEFT_OUT)})
    scripts = [path for path in paths if path.endswith(".py")]
    return scripts, [path for path in paths if not path.endswith(".py")]


def cmake_text() -> str:
    """The content of the file."""
    blocks = ["# Written by Scripts/update_file_lists.py; do not edit by hand."]
    for name, paths in zip(("LIBRARY_SCRIPTS", "LIBRARY_RESOURCES"), library_files()):
        blocks.append("\n".join([f"set({name}", *(f"  {path}" for path in paths), "  )"]))
    return "\n\n".join(blocks) + "\n"


if __name__ == "__main__":
    TARGET.write_text(cmake_text(), encoding="utf-8")
