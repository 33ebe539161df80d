"""Make the pictures of `Docs/tutorial.md` in the headless host: correct, fine-tune, compare, batch, share, by clicks.

`python Scripts/make_tutorial_pictures.py [--minutes M] [--output FOLDER]`. They show only the synthetic phantom, so
they may be published. The host has no Segment Editor: the phantom's own ground truth replaces manual corrections.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from make_screenshots import REPOSITORY, Views, pack, segment_by_click, wait_until

DEFAULT_MODEL = "abdomen-mr"
PHANTOM_SEED = 9
"""A phantom that leaves room for improvement: the pictures show the module, they prove nothing."""
SCAN_NAME = "Phantom abdomen MR"
OTHER_SEEDS = (2, 4)
PANEL_WIDTH = 560
MODEL_TITLE = "My phantom organs"
LONGEST_WAIT_SECONDS = 1800.0

logger = logging.getLogger("make_tutorial_pictures")


def main() -> int:
    """Make all pictures; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = _arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        os.environ["HSAMSEGMENT_HOME"] = home  # the user's own models are not part of the pictures
        from slicerhost import start_host

        host = start_host()
        host.load_module(str(REPOSITORY / "HSAMSegment" / "HSAMSegment.py"))
        tour = Tour(host, arguments.output)
        try:
            tour.segment()
            tour.correct()
            tour.finetune(arguments.minutes)
            tour.compare()
            tour.segment_many()
        finally:
            tour.close()
    for path in sorted(arguments.output.glob("tutorial_*.png")):
        pack(path)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=6.0, help="how long to fine-tune (default: 6)")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "Resources" / "Screenshots")
    return parser.parse_args()


class Tour:
    """Walks through the tutorial and captures each step."""

    def __init__(self, host, output: Path) -> None:
        """Open the module with the phantom in the scene.

        Args:
            host: the running headless host.
            output: folder of the pictures.
        """
        from HSAMSegmentLib.phantom import abdomen_phantom

        self._host, self._output = host, output
        self._volume = add_phantom(SCAN_NAME, PHANTOM_SEED)
        self._truth = abdomen_phantom(seed=PHANTOM_SEED)[1]
        self._views = Views(self._volume)
        self._widget = host.open_module("HSAMSegment", (PANEL_WIDTH, 900))
        self._result = self._before = None

    def close(self) -> None:
        """Stop what is running."""
        self._widget.cleanup()

    def segment(self) -> None:
        """One click on the Segment tab; a copy keeps the model's result."""
        panel = self._widget.shell.open("segment")
        self._result = segment_by_click(self._host, panel, self._volume, DEFAULT_MODEL)
        self._before = copy_of(self._result, "Before the correction")

    def correct(self) -> None:
        """The Fine-tune tab with the slices worth correcting, then the correction."""
        tab = self._widget.shell.open("finetune")
        ui = tab.ui
        ui.finetuneScanSelector.setCurrentNode(self._volume)
        ui.finetuneSegmentationSelector.setCurrentNode(self._result)
        self._grab(tab, ui.correctSection, "tutorial_correct.png")
        draw_truth(self._result, self._truth, self._volume)

    def finetune(self, minutes: float) -> None:
        """Fine-tune on the corrected pair to the end: labels, progress, chart, new model."""
        tab = self._widget.shell.open("finetune")
        ui = tab.ui
        ui.titleEdit.setText(MODEL_TITLE)
        ui.minutesBox.value = minutes
        ui.learnButton.click()
        self._grab_from(tab, ui.casesSection, ui.startButton, "tutorial_finetune.png", without=(ui.correctSection,))
        self._wait(lambda: not tab.run.is_busy, lambda: ui.finetuneStatusLabel.text)
        self._grab(tab, ui.liveSection, "tutorial_live.png")
        self._grab(tab, ui.modelsSection, "tutorial_models.png")
        self._grab_chart(tab.live.chart.chart_node)

    def compare(self) -> None:
        """The model's result against the corrected segmentation, with the disagreement over a slice."""
        tab = self._widget.shell.open("compare")
        ui = tab.ui
        ui.firstSelector.setCurrentNode(self._before)
        ui.secondSelector.setCurrentNode(self._result)
        ui.compareButton.click()
        self._wait(lambda: not tab.engine.is_busy, lambda: ui.statusLabel.text)
        ui.disagreementButton.click()
        self._grab_from(tab, ui.firstSelector, ui.saveButton, "tutorial_compare.png")
        for node in (self._before, self._result):
            node.GetDisplayNode().SetVisibility(False)
        ui.scoreTable.cellClicked.emit(0, 0)
        self._host.process_events()
        self._views.grab_in_place(self._output / "tutorial_disagreement.png")
        ui.disagreementButton.click()

    def segment_many(self) -> None:
        """All scans of the scene on the Batch tab."""
        for number, seed in enumerate(OTHER_SEEDS, start=2):
            add_phantom(f"Phantom {number}", seed)
        tab = self._widget.shell.open("batch")
        ui = tab.ui
        ui.modelCombo.setCurrentIndex(max(ui.modelCombo.findData(DEFAULT_MODEL), 0))
        self._host.process_events()
        ui.batchButton.click()
        self._wait(lambda: ui.batchButton.text == "Segment all", lambda: ui.statusLabel.text)
        self._grab_from(tab, ui.modeCombo, ui.saveButton, "tutorial_batch.png")

    def _wait(self, until: Callable[[], bool], status: Callable[[], str]) -> None:
        wait_until(self._host, until, status, LONGEST_WAIT_SECONDS)

    def _fit(self, tab) -> None:
        """Resize the panel to the height that a part needs; in the application it would scroll."""
        panel, form = self._widget.parent, tab.widget
        for _ in range(3):  # labels with line breaks know their height only after their width is settled
            self._host.process_events()
            asked = max(form.sizeHint().height(), form.layout().totalHeightForWidth(form.width))
            panel.resize(PANEL_WIDTH, asked + panel.height - form.height)
        self._host.process_events()

    def _grab(self, tab, section, name: str) -> None:
        self._fit(tab)
        section.grab().save(str(self._output / name))

    def _grab_from(self, tab, first, last, name: str, without=()) -> None:
        """The panel from one widget down to another."""
        import qt

        for widget in without:
            widget.visible = False
        self._fit(tab)
        page = first.window()
        top = first.mapTo(page, qt.QPoint(0, 0)).y() - 10
        bottom = last.mapTo(page, qt.QPoint(0, 0)).y() + last.height + 5
        picture = page.grab(qt.QRect(0, max(top, 0), page.width, bottom - max(top, 0)))
        picture.save(str(self._output / name))
        for widget in without:
            widget.visible = True

    def _grab_chart(self, chart_node) -> None:
        from slicerhost.plot_view import PlotView

        PlotView(chart_node, (640, 380)).grab(self._output / "tutorial_chart.png")


def add_phantom(name: str, seed: int):
    """A phantom as a volume node with a descriptive name."""
    from HSAMSegmentLib.slicer.self_test import add_phantom as add

    return add(name, seed=seed)


def copy_of(node, name: str):
    """A copy of a segmentation node, as with Clone in the Data module."""
    import slicer

    copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    copy.CreateDefaultDisplayNodes()
    copy.GetSegmentation().DeepCopy(node.GetSegmentation())
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    copy.SetNodeReferenceID(role, node.GetNodeReferenceID(role))
    return copy


def draw_truth(node, truth, volume_node) -> None:
    """Draw the ground truth of every organ into the segments of a node."""
    import slicer

    segmentation = node.GetSegmentation()
    for label in truth.labels:
        identifier = segmentation.GetSegmentIdBySegmentName(label.name)
        if identifier:
            mask = (truth.array == label.value).astype(np.uint8)
            slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, identifier, volume_node)


if __name__ == "__main__":
    sys.exit(main())
