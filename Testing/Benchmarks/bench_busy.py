"""The same segmentation alone and beside as many busy processes as there are cores, alternately.

python Testing/Benchmarks/bench_busy.py

Prints seconds of the network and the ratio busy / quiet, with the bounded spinning that the program sets and, as the
reference, with GNU OpenMP's own default (300,000 rounds). The phantom is segmented with a built-in model in a process
of its own each time. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))
MODEL = "abdomen-mr"
BUSY = "while True:\n    pass\n"
SETTINGS = {"bounded": {}, "OpenMP's default": {"GOMP_SPINCOUNT": "300000"}}


def main() -> None:
    """Measure and print."""
    from HSAMSegmentLib.runtime.threads import usable_cores

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=int, default=usable_cores(), help="busy processes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scan = write_phantom(Path(folder))
        for title, settings in SETTINGS.items():
            quiet, busy = [], []
            for _ in range(options.rounds):
                quiet.append(network_seconds(scan, Path(folder), settings))
                with busy_processes(options.busy):
                    busy.append(network_seconds(scan, Path(folder), settings))
            low, high = statistics.median(quiet), statistics.median(busy)
            print(
                f"{title}: quiet {low:.2f} s, beside {options.busy} busy processes {high:.2f} s, ratio {high / low:.1f}"
            )


def write_phantom(folder: Path) -> Path:
    """The phantom as a file."""
    import SimpleITK as sitk

    from HSAMSegmentLib.images.sitk_images import image_of
    from HSAMSegmentLib.phantom import abdomen_phantom

    volume, _ = abdomen_phantom()
    sitk.WriteImage(image_of(volume.array, volume.geometry), str(folder / "phantom.nii.gz"))
    return folder / "phantom.nii.gz"


def network_seconds(scan: Path, folder: Path, settings: dict[str, str]) -> float:
    """Seconds of the network, from the report of one run of the program."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "KMP_", "OMP_"))}
    report = folder / "report.json"
    command = [sys.executable, "-m", "HSAMSegmentLib", "segment", str(scan), "-o", str(folder / "out.nii.gz")]
    command += ["--model", MODEL, "--report", str(report), "--overwrite", "--quiet"]
    subprocess.run(command, check=True, cwd=REPOSITORY, env={**clean, **settings})
    return float(json.loads(report.read_text(encoding="utf-8"))["timings_s"]["network"])


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Processes that each keep a core busy meanwhile."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
