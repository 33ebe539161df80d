"""What a cohort costs: two workers against one, the pause between two scans of a worker, and memory of the scheduler.

python Testing/Benchmarks/bench_cohort.py [--scans 12] [--empty 3000]

The first part hands out scans that fail at once, so that only the scheduler and this program work: scans per second,
and memory. The second part segments phantoms with a built-in model, one thread per worker: in this process, on one
worker, on two, on two, on one. A worker is timed from the end of its first scan, so that its start and the loading of
the model do not count. Seconds are those of the clock and of the processors, with how busy other programs kept the
machine meanwhile. The pause is the time of a worker between two scans, in percent of a scan.

The last line has the two numbers that count: how many times as fast as one worker two are, and the share of the pause.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))
MODEL = "abdomen-mr"
QUIET_CORES = 0.1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=12)
    parser.add_argument("--empty", type=int, default=3000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.empty:
            measure_empty(folder, options.empty)
        write_phantoms(folder / "in", options.scans)
        conclude([measure(folder, workers) for workers in (0, 1, 2, 2, 1)])


def write_phantoms(folder: Path, count: int) -> None:
    """Phantoms as files."""
    import SimpleITK as sitk

    from HSAMSegmentLib.images.sitk_images import image_of
    from HSAMSegmentLib.phantom import abdomen_phantom

    folder.mkdir()
    volume, _ = abdomen_phantom()
    for number in range(count):
        sitk.WriteImage(image_of(volume.array, volume.geometry), str(folder / f"p{number}.nii.gz"))


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        workers: 0 for this process.
        rate: scans per second of all workers together, without the first scan of each.
        seconds: of the clock per scan.
        used: seconds of the processors per scan.
        pause: of a worker between two scans, seconds.
        others: processors that other programs used.
    """

    workers: int
    rate: float
    seconds: float
    used: float
    pause: float
    others: float


def measure(folder: Path, workers: int) -> Run:
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
    ends: list[tuple[float, float, float, str]] = []

    def note(index: int, total: int, outcome: Any) -> None:
        if outcome.seconds:
            ends.append((time.monotonic(), outcome.seconds, own_seconds(), outcome.worker))

    before, began = busy_seconds(), time.monotonic()
    own = own_seconds()
    if workers:
        run = FolderRun(request, find_listed_scans(request.source), note)
        with run.recorded():
            cluster_run.segment_on_cluster(run, Context())
    else:
        segment_folder(request, Context(), note)
    wall = time.monotonic() - began
    of_workers = [[end for end in ends if end[3] == worker] for worker in {end[3] for end in ends}]
    timed = [own_ends for own_ends in of_workers if len(own_ends) > 1]
    count = sum(len(own_ends) - 1 for own_ends in timed)
    spans = [own_ends[-1][0] - own_ends[0][0] for own_ends in timed]
    inside = sum(seconds for own_ends in timed for _, seconds, _, _ in own_ends[1:])
    made = Run(
        workers,
        rate=sum((len(own_ends) - 1) / span for own_ends, span in zip(timed, spans)),
        seconds=inside / count,
        used=(ends[-1][2] - ends[len(timed) - 1][2]) / (len(ends) - len(timed)),
        pause=(sum(spans) - inside) / count,
        # Workers have ended by now, so their seconds are those at the last scan.
        others=max(busy_seconds() - before - (ends[-1][2] - own), 0.0) / wall,
    )
    print(
        f"{f'{workers} worker(s)' if workers else 'in this process'}: {made.rate:.3f} scans per second; per scan "
        f"{made.seconds:.2f} s, {made.used:.2f} s of processors, pause {1000 * made.pause:.0f} ms; others used "
        f"{made.others:.2f} of {psutil.cpu_count()} cores",
        flush=True,
    )
    return made


def conclude(runs: Sequence[Run]) -> None:
    """Print the two numbers that count."""
    one, two = ([run for run in runs if run.workers == count] for count in (1, 2))
    times = sum(run.rate for run in two) / sum(run.rate for run in one)
    share = sum(run.pause for run in one) / sum(run.pause + run.seconds for run in one)
    others = max(run.others for run in (*one, *two))
    quiet = "the machine was quiet" if others < QUIET_CORES else f"other programs used up to {others:.2f} cores"
    print(
        f"Two workers are {times:.2f} times as fast as one; a worker pauses for {100 * share:.2f} % of a scan; {quiet}."
    )


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
