"""How responsive the application stays while a job runs, and what the job loses by running beside it.

Under an event loop that holds the GIL as Slicer's does, a 10 ms timer records how late it fires: while idle, while a
worker process segments, and while a background thread does. The same scan is then segmented on its own, as the command
line does it. Run: `python Testing/Benchmarks/gui_lateness.py [MODEL]` (default: a tiny one with random weights).
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "Testing" / "Host"), str(REPOSITORY / "Testing" / "Python")]
INTERVAL_MS = 10
SHAPE = (160, 256, 256)


class Lateness:
    """A timer that notes how late it fires, its first time included, so that a click before it counts."""

    def __init__(self):
        import qt

        self.late_ms = []
        self._last = time.perf_counter()
        self._timer = qt.QTimer()
        self._timer.setInterval(INTERVAL_MS)
        self._timer.connect("timeout()", self._tick)
        self._timer.start()

    def _tick(self):
        now = time.perf_counter()
        self.late_ms.append(max(0.0, (now - self._last) * 1000.0 - INTERVAL_MS))
        self._last = now

    def report(self, name):
        """Stop, and print the quantiles."""
        self._timer.stop()
        quantiles = np.percentile(self.late_ms, [50, 99, 100])
        print(
            f"{name:34s} lateness of a {INTERVAL_MS} ms timer: p50 {quantiles[0]:6.1f}  p99 {quantiles[1]:6.1f}  "
            f"longest {quantiles[2]:6.1f} ms  ({len(self.late_ms)} ticks)"
        )


def _segment(engine, bound, run_holding_gil, name):
    """Segment under the loop; returns the seconds that the engine itself took."""
    from HSAMSegmentLib.slicer.nodes.segment_session import Written
    from HSAMSegmentLib.workflows.events import Failed

    seen = []
    lateness = Lateness()
    engine.start(bound, seen.append)
    run_holding_gil(lambda: not engine.is_busy, limit_ms=600_000)
    lateness.report(name)
    if isinstance(seen[-1], Failed):
        raise SystemExit(seen[-1].cause)
    return next(event.outcome.seconds for event in seen if isinstance(event, Written))


def _alone(model, volume):
    """A function that segments the same scan without an application beside it and returns the seconds."""
    from HSAMSegmentLib.images.volume import Volume
    from HSAMSegmentLib.inference.predictor import Segmenter
    from HSAMSegmentLib.slicer.nodes.volumes import volume_array, volume_geometry
    from HSAMSegmentLib.weights.loading import load_model

    segmenter = Segmenter(load_model(model))
    scan = Volume(volume_array(volume), volume_geometry(volume))
    return lambda: segmenter.segment(scan).timings_s["total"]


def main() -> None:
    """Measure and print."""
    from slicerhost import start_host
    from untrained_model import write_untrained_model

    start_host()
    import slicer
    from slicerhost.event_loop import run_holding_gil

    from HSAMSegmentLib.slicer.nodes.segment_session import bind_request
    from HSAMSegmentLib.slicer.panels.engine import Engine, thread_session

    rng = np.random.default_rng(0)
    volume = slicer.util.addVolumeFromArray(rng.normal(50, 100, SHAPE).astype(np.int16), np.eye(4), "Scan")
    with tempfile.TemporaryDirectory() as folder:
        model = sys.argv[1] if len(sys.argv) > 1 else str(write_untrained_model(Path(folder) / "tiny.safetensors"))
        bound = bind_request(volume, model)
        idle = Lateness()
        run_holding_gil(lambda: len(idle.late_ms) > 300)
        idle.report("idle")
        engine = Engine()
        _segment(engine, bound, run_holding_gil, "worker process, first job")
        segment_alone = _alone(model, volume)
        segment_alone()
        beside, alone = [], []
        for _ in range(3):  # taken in turns, so that whatever else the computer does hits both
            beside.append(_segment(engine, bound, run_holding_gil, "worker process, warm"))
            alone.append(segment_alone())
        engine.close()
        thread = Engine(thread_session)
        _segment(thread, bound, run_holding_gil, "background thread, first job")
        in_thread = _segment(thread, bound, run_holding_gil, "background thread, warm")
        thread.close()
    slower = statistics.median(beside) / statistics.median(alone)
    print(
        f"engine alone {statistics.median(alone):.2f} s, in the worker process {statistics.median(beside):.2f} s "
        f"({slower:.2f} times as long), in a background thread {in_thread:.2f} s"
    )


if __name__ == "__main__":
    main()
