"""Private temporary folders for the arrays of jobs, deleted at exit or, after a crash, at the next start."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "hsamsegment-"


class Workspace:
    """Provides one folder per job below a folder that only this user can read."""

    def __init__(self, parent: str | Path | None = None) -> None:
        """Create the folder in `parent`, by default the system's temporary folder."""
        base = Path(parent) if parent else Path(tempfile.gettempdir())
        remove_abandoned(base)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=base))
        self._jobs = 0
        atexit.register(self.close)

    def job_folder(self) -> Path:
        """Create an empty folder for one job."""
        self._jobs += 1
        folder = self.folder / f"job-{self._jobs}"
        folder.mkdir()
        return folder

    def close(self) -> None:
        """Delete everything; may be called more than once."""
        atexit.unregister(self.close)
        shutil.rmtree(self.folder, ignore_errors=True)


def remove_abandoned(base: Path) -> None:
    """Delete the folders of processes that ended without cleanup (killed, power failure).

    Without psutil, which comparisons do not need, they remain until a start that has it.
    """
    try:
        import psutil
    except ModuleNotFoundError:
        return
    for folder in base.glob(f"{PREFIX}*-*"):
        owner = folder.name[len(PREFIX) :].split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
