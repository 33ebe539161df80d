"""How responsive the application stays while a model is fine-tuned, with its chart and pictures drawn meanwhile.

Under an event loop that holds the GIL as Slicer's does, a 10 ms timer records how late it fires: while idle, during the
click on Start, and while the worker fine-tunes. Run: `python Testing/Benchmarks/finetune_lateness.py [MINUTES]`.
"""

from __future__ import annotations

import os
import sys
import tempfile

import numpy as np
from gui_lateness import Lateness

SHAPE = (120, 320, 320)
ORGANS = {1: "Liver", 2: "Right kidney", 3: "Left kidney", 4: "Spleen"}


def _phantom_labels() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    for value in ORGANS:
        start = 60 * (value - 1) + 20
        labels[20:100, 60 : 60 + 40 * value, start : start + 50] = value
    return labels


def main() -> None:
    """Measure and print."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    from slicerhost import start_host

    host = start_host()
    import slicer
    from finetune_panel_driver import FinetunePanelDriver, add_segmentation
    from slicerhost.event_loop import run_holding_gil

    from HSAMSegmentLib.weights.store import HOME_VARIABLE, Store

    with tempfile.TemporaryDirectory() as folder:
        os.environ[HOME_VARIABLE] = folder
        labels = _phantom_labels()
        array = (np.random.default_rng(0).normal(100, 20, SHAPE) + 60.0 * labels).astype(np.int16)
        volume = slicer.util.addVolumeFromArray(array, np.diag([-1.2, -1.2, 3.0, 1.0]), "Scan")
        driver = FinetunePanelDriver(host, Store())
        driver.add(volume, add_segmentation(volume, labels, ORGANS))
        driver.ui.minutesBox.value = minutes
        idle = Lateness()
        run_holding_gil(lambda: len(idle.late_ms) > 300)
        idle.report("idle")
        finetuning = Lateness()
        driver.ui.startButton.click()
        run_holding_gil(lambda: not driver.tab.run.is_busy, limit_ms=int(60_000 * minutes + 300_000))
        finetuning.report("fine-tuning, the click included")
        print(driver.status)
        driver.close()


if __name__ == "__main__":
    main()
