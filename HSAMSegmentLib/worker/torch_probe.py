"""Does PyTorch load? Asked in a process of its own, since a damaged one may end the program that imports it."""

from __future__ import annotations

import subprocess

from HSAMSegmentLib.runtime.translation import tr as _
from HSAMSegmentLib.workflows.terminal_events import signal_name_of

PROBE_SECONDS = 120.0
_SCRIPT = "print('alive', flush=True); import torch; torch.ones(2).sum(); print('fine', flush=True)"


def torch_crash(python: str) -> str:
    """Why PyTorch must not be imported here, as a sentence; empty if it loads, or if that cannot be found out.

    Args:
        python: interpreter to ask in; unknown where it cannot be started.
    """
    try:
        done = subprocess.run(
            [python, "-c", _SCRIPT],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    said = done.stdout.split()
    if "alive" not in said or "fine" in said:
        return ""
    lines = done.stderr.strip().splitlines()
    reason = signal_name_of(done.returncode) or (lines[-1] if lines else f"exit code {done.returncode}")
    return _(
        "PyTorch cannot be loaded ({reason}), and loading it could end this program. Remove it, restart, and install "
        "it again (in Slicer: module 'PyTorch Utils')."
    ).format(reason=reason)
