"""What a cohort costs: two workers against one, the pause between two scans of a worker, and memory of the scheduler.

python Testing/Benchmarks/bench_cohort.py [--scans 8] [--empty 3000]

The first part segments phantoms with a built-in model, one thread per worker: in this process, on one worker, on two.
It prints seconds by the clock and of the processors, from the first scan to the last, and how busy other programs kept
the machine meanwhile. The pause is the time of a worker between two scans, in percent of a scan. The second part hands
out scans that fail at once, so that only the scheduler and this program work: scans per second, and memory.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))
MODEL = "abdomen-mr"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=8)
    parser.add_argument("--empty", type=int, default=3000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure_empty(folder, options.empty)
        write_phantoms(folder / "in", options.scans)
        for workers in (0, 1, 2, 2, 1):
            measure(folder, workers, options.scans)


def write_phantoms(folder: Path, count: int) -> None:
    """Phantoms as files."""
    import SimpleITK as sitk

    from HSAMSegmentLib.images.sitk_images import image_of
    from HSAMSegmentLib.phantom import abdomen_phantom

    folder.mkdir()
    volume, _ = abdomen_phantom()
    for number in range(count):
        sitk.WriteImage(image_of(volume.array, volume.geometry), str(folder / f"p{number}.nii.gz"))


def measure(folder: Path, workers: int, count: int) -> None:
    """One run; no workers means in this process, one a cluster of one."""
    from HSAMSegmentLib.inference.options import SegmentOptions
    from HSAMSegmentLib.workflows.cohort import cluster_run
    from HSAMSegmentLib.workflows.context import Context
    from HSAMSegmentLib.workflows.segment_folder.folder_request import FolderRequest
    from HSAMSegmentLib.workflows.segment_folder.folder_run import FolderRun
    from HSAMSegmentLib.workflows.segment_folder.segment_folder import find_listed_scans, segment_folder

    output = Path(tempfile.mkdtemp(dir=folder))
    request = FolderRequest(
        str(folder / "in"), str(output), MODEL, "cpu", SegmentOptions(threads=1), workers=max(workers, 1)
    )
    ends: list[tuple[float, float, float]] = []

    def note(index: int, total: int, outcome: object) -> None:
        seconds = getattr(outcome, "seconds", 0.0)
        if seconds:
            ends.append((time.monotonic(), seconds, own_seconds()))

    before, began = busy_seconds(), time.monotonic()
    own = own_seconds()
    if workers:
        run = FolderRun(request, find_listed_scans(request.source), note)
        with run.recorded():
            cluster_run.segment_on_cluster(run, Context())
    else:
        segment_folder(request, Context(), note)
    wall = time.monotonic() - began
    first = ends[: max(workers, 1)]
    rest = ends[max(workers, 1) :]
    span = ends[-1][0] - first[0][0]
    inside = sum(seconds for _, seconds, _ in rest)
    used = ends[-1][2] - first[0][2]
    # Workers have ended by now, so their seconds are those at the last scan.
    others = max(busy_seconds() - before - (ends[-1][2] - own), 0.0) / wall
    title = f"{workers} worker(s)" if workers else "in this process"
    line = f"{title}: {len(rest)} scans after the first ones in {span:.1f} s, {used:.1f} s of processors"
    if workers <= 1:
        pause = (span - inside) / len(rest)
        share = 100 * pause * len(rest) / span
        line += f"; {inside / len(rest):.2f} s per scan, pause {1000 * pause:.0f} ms = {share:.2f} %"
    print(f"{line}; others used {others:.2f} of {psutil.cpu_count()} cores", flush=True)


def own_seconds() -> float:
    """Seconds of processors of this program and its children."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            times = process.cpu_times()
            total += times.user + times.system
        except psutil.Error:
            continue
    return total


def busy_seconds() -> float:
    """Seconds that all processors were busy."""
    times = psutil.cpu_times()
    return times.user + times.system + times.nice


def measure_empty(folder: Path, count: int) -> None:
    """Scans that end at once: what remains is the scheduler's part and that of this program."""
    from HSAMSegmentLib.inference.options import SegmentOptions
    from HSAMSegmentLib.workflows.context import Context
    from HSAMSegmentLib.workflows.segment_folder.folder_request import FolderRequest
    from HSAMSegmentLib.workflows.segment_folder.segment_folder import segment_folder

    table = folder / "scans.csv"
    table.write_text("id,path\n" + "".join(f"s{number},missing/{number}.nii.gz\n" for number in range(count)))
    request = FolderRequest(str(table), str(folder / "empty"), MODEL, "cpu", SegmentOptions(threads=1), workers=2)
    marks: list[tuple[float, float, int]] = []

    def note(index: int, total: int, outcome: object) -> None:
        if getattr(outcome, "seconds", 0.0):
            own = psutil.Process()
            marks.append((time.monotonic(), sum(own.cpu_times()[:2]), own.memory_info().rss))

    segment_folder(request, Context(), note)
    tenth = len(marks) // 10
    wall, used = marks[-1][0] - marks[tenth][0], marks[-1][1] - marks[tenth][1]
    grown = (marks[-1][2] - marks[tenth][2]) / 1e6
    scans = len(marks) - tenth
    print(
        f"{scans} empty scans on 2 workers: {scans / wall:.0f} per second; scheduler and this program together "
        f"{1000 * used / scans:.1f} ms of a processor per scan, {marks[-1][2] / 1e6:.0f} MB, grown by {grown:.1f} MB"
    )


if __name__ == "__main__":
    main()
