"""Processor seconds of a segmentation with the memory settings that Dask gives its workers, and with ours.

python Testing/Benchmarks/bench_allocator.py

Each run is a process of its own with one thread; the three settings take turns.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ROUNDS = 3
PROGRAM = """
import sys, time
import HSAMSegmentLib as hsam
from HSAMSegmentLib.phantom import abdomen_phantom
from HSAMSegmentLib.runtime.heap import keep_freed_memory_of_dask
if sys.argv[1] == "ours":
    assert keep_freed_memory_of_dask()
volume, _ = abdomen_phantom()
hsam.segment(volume, "abdomen-mr", device="cpu")
began = time.process_time()
hsam.segment(volume, "abdomen-mr", device="cpu")
print(time.process_time() - began)
"""
SETTINGS = {
    "the system's": {},
    "Dask's": {"MALLOC_TRIM_THRESHOLD_": "65536"},
    "ours": {"MALLOC_TRIM_THRESHOLD_": "65536"},
}


def main() -> None:
    """Measure and print."""
    seconds: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for _ in range(ROUNDS):
        for name, variables in SETTINGS.items():
            environment = {**os.environ, **variables, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
            command = [sys.executable, "-c", PROGRAM, name]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            seconds[name].append(float(done.stdout))
    for name, values in seconds.items():
        print(f"{name}: {statistics.median(values):.2f} s of a processor ({', '.join(f'{v:.2f}' for v in values)})")


if __name__ == "__main__":
    main()
