"""How much longer a segmentation takes from the panel's click than from the command line: ratios of whole wall times.

Both start from nothing (a new worker process, a new `hsam-segment`), taken in turns, so that whatever else the computer
does hits both; the application's event loop holds the GIL meanwhile as Slicer's does. A second click, whose worker has
the model already, is compared with the same command. The command also reads and writes files, the click does not.

Run: `python Testing/Benchmarks/job_against_command.py [--scan FILE] [--model ID] [--rounds 3]` (default: the phantom).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "Testing" / "Host")]


def _write_phantom(path: Path) -> Path:
    import SimpleITK as sitk

    from HSAMSegmentLib.images.sitk_images import image_of
    from HSAMSegmentLib.phantom import abdomen_phantom

    volume, _ = abdomen_phantom()
    sitk.WriteImage(image_of(volume.array, volume.geometry), str(path))
    return path


def _command_seconds(scan: Path, model: str, folder: Path) -> float:
    command = [sys.executable, "-m", "HSAMSegmentLib", "segment", str(scan), "-o", str(folder / "organs.seg.nrrd")]
    command += ["--model", model, "--overwrite", "--quiet"]
    started = time.perf_counter()
    subprocess.run(command, check=True, cwd=REPOSITORY)
    return time.perf_counter() - started


def _click_seconds(engine, volume, model: str) -> tuple[float, float]:
    """Wall time from the click to the segments, and the seconds that the engine itself took."""
    from slicerhost.event_loop import run_holding_gil

    from HSAMSegmentLib.slicer.nodes.segment_session import bind_request
    from HSAMSegmentLib.workflows.events import Failed

    seen = []
    started = time.perf_counter()
    engine.start(bind_request(volume, model), seen.append)
    run_holding_gil(lambda: not engine.is_busy, limit_ms=3_600_000)
    seconds = time.perf_counter() - started
    if isinstance(seen[-1], Failed):
        raise SystemExit(seen[-1].cause)
    return seconds, seen[-1].outcome.seconds


def _rounds(count: int, scan: Path, model: str, folder: Path) -> list[tuple[float, float, float]]:
    import slicer

    from HSAMSegmentLib.slicer.panels.engine import Engine

    volume = slicer.util.loadVolume(str(scan), {})
    measured = []
    for number in range(count):
        command = _command_seconds(scan, model, folder)
        engine = Engine()
        first, _ = _click_seconds(engine, volume, model)
        second, inside = _click_seconds(engine, volume, model)
        engine.close()
        measured.append((command, first, second))
        print(
            f"round {number + 1}: command {command:.2f} s, first click {first:.2f} s, second click {second:.2f} s "
            f"(engine {inside:.2f} s)",
            flush=True,
        )
    return measured


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path)
    parser.add_argument("--model", default="abdomen-mr")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    from slicerhost import start_host

    start_host()
    with tempfile.TemporaryDirectory() as folder:
        scan = arguments.scan or _write_phantom(Path(folder) / "phantom.nii.gz")
        measured = _rounds(arguments.rounds, scan, arguments.model, Path(folder))
    first = statistics.median(click / command for command, click, _ in measured)
    second = statistics.median(click / command for command, _, click in measured)
    print(f"first click {first:.2f} times, second click {second:.2f} times as long as the command (goal: at most 1.10)")


if __name__ == "__main__":
    main()
