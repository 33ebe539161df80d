"""How responsive the application stays while two large segmentations are compared, and while scans are segmented.

Under an event loop that holds the GIL as Slicer's does, a 10 ms timer records how late it fires, the clicks included:
while idle, while two segmentations (and then two label maps) of a large scan are chosen and compared, when their
disagreement is shown, and while the tab Batch segments scans of the scene.
Run: `python Testing/Benchmarks/compare_batch_lateness.py [SLICES] [SCANS]` (default: 300 slices, 3 scans).
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from gui_lateness import Lateness

PIXELS, ORGANS, SCAN_SHAPE = 512, 8, (60, 256, 256)
LONGEST_MS = 600_000


def _labels(slices: int, shift: int) -> np.ndarray:
    """Balls on a circle, a little moved."""
    labels = np.zeros((slices, PIXELS, PIXELS), np.uint8)
    k, j, i = np.ogrid[:slices, :PIXELS, :PIXELS]
    for value in range(1, ORGANS + 1):
        angle = 2.0 * np.pi * value / ORGANS
        middle = (PIXELS / 2 + 150 * np.sin(angle) + shift, PIXELS / 2 + 150 * np.cos(angle))
        radii = (slices * 0.4, 50.0, 50.0)
        inside = (
            ((k - slices / 2) / radii[0]) ** 2 + ((j - middle[0]) / radii[1]) ** 2 + ((i - middle[1]) / radii[2]) ** 2
        )
        labels[inside <= 1.0] = value
    return labels


def _label_map(labels: np.ndarray, name: str):
    import slicer

    return slicer.util.addVolumeFromArray(labels, np.diag([-0.8, -0.8, 1.5, 1.0]), name, "vtkMRMLLabelMapVolumeNode")


def _segmentation(label_map, name: str):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(label_map, node)
    node.SetReferenceImageGeometryParameterFromVolumeNode(label_map)
    return node


def _measure(name: str, act, until=lambda: True) -> None:
    """Do something as a click does, and go on until it is over."""
    from slicerhost.event_loop import run_holding_gil

    lateness = Lateness()
    act()
    run_holding_gil(lambda: len(lateness.late_ms) > 20 and until(), limit_ms=LONGEST_MS)
    lateness.report(name)


def _compare(host, slices: int) -> None:
    from tab_driver import TabDriver

    from HSAMSegmentLib.slicer.panels.compare.compare_tab import CompareTab

    maps = [_label_map(_labels(slices, shift), name) for shift, name in ((6, "Mine"), (0, "Reference"))]
    segmentations = [_segmentation(item, f"{item.GetName()} segments") for item in maps]
    driver = TabDriver(host, CompareTab, None, models=())
    for kind, nodes in (("segmentations", segmentations), ("label maps", maps)):

        def choose(pair=nodes):
            driver.ui.firstSelector.setCurrentNode(pair[0])
            driver.ui.secondSelector.setCurrentNode(pair[1])

        _measure(f"{kind}: choosing", choose)
        _measure(f"{kind}: comparing", driver.ui.compareButton.click, lambda: not driver.tab.engine.is_busy)
        print(driver.status)
        _measure(f"{kind}: showing what differs", driver.ui.disagreementButton.click)
    driver.close()


def _batch(host, scans: int) -> None:
    import slicer
    from panel_fixtures import store_of_one_model
    from tab_driver import TabDriver

    from HSAMSegmentLib.slicer.panels.batch.batch_tab import build
    from HSAMSegmentLib.slicer.panels.engine import Engine
    from HSAMSegmentLib.slicer.panels.widgets.model_list import StoreModels

    slicer.mrmlScene.Clear(0)
    noise = np.random.default_rng(0)
    for number in range(scans):
        slicer.util.addVolumeFromArray(noise.normal(50, 100, SCAN_SHAPE).astype(np.int16), None, f"Scan {number + 1}")
    with tempfile.TemporaryDirectory() as folder, store_of_one_model(Path(folder), modality="") as store:
        engine = Engine()
        driver = TabDriver(host, build, engine, StoreModels(store))
        _measure("batch", driver.ui.batchButton.click, lambda: driver.ui.batchButton.text == "Segment all")
        print(driver.status)
        _measure("batch: a click on a row", lambda: driver.ui.batchTable.cellClicked.emit(1, 0))
        driver.close()
        engine.close()


def main() -> None:
    """Measure and print."""
    numbers = [int(word) for word in sys.argv[1:]]
    slices, scans = (*numbers, *(300, 3)[len(numbers) :])
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from slicerhost import start_host

    host = start_host()
    _measure("idle", lambda: None)
    _compare(host, slices)
    _batch(host, scans)


if __name__ == "__main__":
    main()
