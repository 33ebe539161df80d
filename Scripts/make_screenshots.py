"""Make the README pictures in the headless host: the panel with a finished result, a slice, and the 3D view.

`python Scripts/make_screenshots.py [SCAN] [--model ID] [--output FOLDER]`. Without a scan it shows the CT scan of the
tests (Apache-2.0); only these pictures may be committed, since the terms of most scans forbid redistributing even
pictures of them.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "Testing" / "Host")]
DEFAULT_SCAN = REPOSITORY / "Testing" / "Data" / "ct_totalsegmentator" / "images" / "ct_example_full.nii.gz"
DEFAULT_MODEL = "abdomen-ct"
ABDOMEN_WINDOW_HU = (400.0, 40.0)
"""Width and center of the usual window for abdominal CT."""
PANEL_WIDTH, TALLEST_PANEL = 480, 1400
LONGEST_WAIT_SECONDS = 300.0

logger = logging.getLogger("make_screenshots")


def main() -> int:
    """Make all pictures; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = _arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    from slicerhost import start_host

    host = start_host()
    host.load_module(str(REPOSITORY / "HSAMSegment" / "HSAMSegment.py"))
    volume = load_scan(arguments.scan)
    views = Views(volume)
    widget = host.open_module("HSAMSegment")
    try:
        node = segment_by_click(host, widget.shell.open("segment"), volume, arguments.model)
        grab_panel(host, widget, arguments.output / "panel.png")
        views.grab_slice(arguments.output / "slice.png")
        views.grab_three_d(node, arguments.output / "three_d.png")
    finally:
        widget.cleanup()
    for name in ("panel.png", "slice.png", "three_d.png"):
        pack(arguments.output / name)
    return 0


def pack(path: Path) -> None:
    """Save a picture again with its 256 most frequent colors: less than half the size, the same look."""
    from PIL import Image

    before = path.stat().st_size
    with Image.open(path) as picture:
        packed = picture.convert("RGB").quantize(256, kmeans=2, dither=Image.Dither.NONE)
    packed.save(path, optimize=True)
    logger.info("%s: %.0f kB, was %.0f", path.name, path.stat().st_size / 1000, before / 1000)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scan", nargs="?", help="a scan to show instead; do not commit its pictures")
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"id of the model (default: {DEFAULT_MODEL})")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "Resources" / "Screenshots")
    return parser.parse_args()


def load_scan(path: str | None):
    """The volume node to segment: from a file, or the CT scan of the tests in the usual window."""
    import slicer

    volume = slicer.util.loadVolume(path or str(DEFAULT_SCAN), {})
    if not path:
        volume.SetName("CT abdomen")
        volume.CreateDefaultDisplayNodes()
        volume.GetDisplayNode().SetAutoWindowLevel(False)
        volume.GetDisplayNode().SetWindowLevel(*ABDOMEN_WINDOW_HU)
    return volume


def segment_by_click(host, panel, volume, model: str):
    """Choose scan and model in the panel, click, and wait; return the segmentation node."""
    import slicer

    ui = panel.ui
    ui.scanSelector.setCurrentNode(volume)
    row = ui.modelCombo.findData(model)
    if row < 0:
        raise SystemExit(f"There is no model '{model}'.")
    ui.modelCombo.setCurrentIndex(row)
    ui.applyButton.click()
    wait_until(host, lambda: ui.applyButton.text == "Segment organs", lambda: ui.statusLabel.text)
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    if not nodes:
        raise SystemExit(f"No result: {ui.statusLabel.text}")
    return nodes[0]


def wait_until(
    host, done: Callable[[], bool], status: Callable[[], str], seconds: float = LONGEST_WAIT_SECONDS
) -> None:
    """Run the event loop until a condition holds, then log the panel's status.

    Raises:
        SystemExit: on timeout.
    """
    deadline = time.monotonic() + seconds
    host.process_events()
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(f"Waited in vain; the panel says: {status()}")
        host.process_events()
        time.sleep(0.01)
    host.process_events()
    logger.info("%s", status())


def grab_panel(host, widget, path: Path) -> None:
    """The panel with a result, in a dock of the height that it needs."""
    panel = host.show_in_panel(widget, PANEL_WIDTH, TALLEST_PANEL)
    settle(host)
    form = widget.shell.open("segment").widget
    spare = form.height - form.layout().totalHeightForWidth(form.width)
    panel.resize(PANEL_WIDTH, TALLEST_PANEL - spare)
    settle(host)
    panel.resize(PANEL_WIDTH, panel.height + panel.verticalScrollBar().maximum)
    settle(host)
    panel.grab().save(str(path))
    panel.give_back()


def settle(host, rounds: int = 30) -> None:
    """Let heights adapt to widths, level by level."""
    for _ in range(rounds):
        host.process_events()


class Views:
    """The slice and 3D views to capture."""

    def __init__(self, volume) -> None:
        """Create them before the job, since an application already has them open."""
        import slicer

        self._volume = volume
        volume.CreateDefaultDisplayNodes()
        self._slice = slicer.app.layoutManager().sliceWidget("Red").view
        self._three_d = slicer.app.layoutManager().threeDWidget(0).view
        self._slice.show(volume)

    def grab_slice(self, path: Path) -> None:
        """The slice with the most organs."""
        import slicer

        self._slice.show(self._volume, self._offset_of_fullest_slice())
        for display in slicer.util.getNodesByClass("vtkMRMLSegmentationDisplayNode"):
            display.SetOpacity2DFill(0.35)
        self._slice.grab(path)

    def grab_in_place(self, path: Path) -> None:
        """The current slice, uncropped."""
        offset = self._slice.logic.GetSliceOffset()
        self._slice.logic.FitSliceToBackground()
        self._slice.logic.SetSliceOffset(offset)
        self._slice.grab(path)

    def _offset_of_fullest_slice(self) -> float:
        import slicer

        from HSAMSegmentLib.slicer.nodes.volumes import ijk_to_world

        node = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[0]
        segments = node.GetSegmentation().GetSegmentIDs()
        masks = [slicer.util.arrayFromSegmentBinaryLabelmap(node, item, self._volume) for item in segments]
        areas = np.array([np.sqrt(mask.astype(bool).sum(axis=(1, 2))) for mask in masks])
        return ijk_to_world(self._volume, (0, 0, int(areas.sum(axis=0).argmax())))[2]

    def grab_three_d(self, node, path: Path) -> None:
        """All organs from the front."""
        node.GetDisplayNode().SetOpacity3D(1.0)
        self._three_d.node.SetBackgroundColor(0.96, 0.97, 0.99)
        self._three_d.node.SetBackgroundColor2(0.75, 0.80, 0.88)
        self._three_d.grab()
        self._three_d.fit()
        self._three_d.renderer.GetActiveCamera().Zoom(1.3)
        self._three_d.grab(path)


if __name__ == "__main__":
    sys.exit(main())
