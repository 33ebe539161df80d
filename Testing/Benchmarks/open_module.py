"""What the module costs at Slicer's start, and how long its panel takes to open, each time in a fresh process.

Runs in the headless host: what Slicer itself does around it (menus, layout) is not counted. A first run, which is not
counted, writes the byte code that an installed extension has.

Run: `python Testing/Benchmarks/open_module.py [--runs 7]`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = {"start": "at the start of the application", "open": "opening the panel", "again": "coming back to the panel"}
GOALS = {"start": 0.05, "open": 0.2}
_SCRIPT = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from slicerhost import start_host
host = start_host()
times = {}
clock = time.perf_counter()
host.load_module(sys.argv[2])
times["start"] = time.perf_counter() - clock
clock = time.perf_counter()
widget = host.open_module("HSAMSegment")
times["open"] = time.perf_counter() - clock
clock = time.perf_counter()
widget.exit()
widget.enter()
host.process_events()
times["again"] = time.perf_counter() - clock
heavy = [name for name in ("torch", "monai", "scipy", "SimpleITK") if name in sys.modules]
widget.cleanup()
print(json.dumps({"times": times, "heavy": heavy}))
"""


def measure() -> dict:
    """Start the host, load and open the module in a new process."""
    command = [sys.executable, "-c", _SCRIPT, str(REPOSITORY / "Testing" / "Host")]
    command.append(str(REPOSITORY / "HSAMSegment" / "HSAMSegment.py"))
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    count = parser.parse_args().runs
    runs = [measure() for _ in range(1 + count)][1:]
    for key, meaning in NAMES.items():
        seconds = [run["times"][key] for run in runs]
        goal = f", goal below {GOALS[key]:.2f} s" if key in GOALS else ""
        print(
            f"{meaning:32s} median {statistics.median(seconds):.3f} s, fastest {min(seconds):.3f}, "
            f"slowest {max(seconds):.3f} of {len(seconds)}{goal}"
        )
    heavy = sorted({name for run in runs for name in run["heavy"]})
    print(f"imported meanwhile: {', '.join(heavy) or 'neither torch, monai, scipy nor SimpleITK'}")


if __name__ == "__main__":
    main()
