"""Drives the panel in tests: the form with a panel, answers to its questions, and waiting."""

from __future__ import annotations

import time
from pathlib import Path

from panel_layout import whole_text

REPOSITORY = Path(__file__).resolve().parents[2]
FORM = REPOSITORY / "HSAMSegment" / "Resources" / "UI" / "HSAMSegment.ui"


class Answers:
    """Answers the panel's questions as told and remembers them."""

    def __init__(self):
        self.agrees = True
        self.path = ""
        self.questions = []
        self.clipboard = ""

    def confirm(self, title, text):
        self.questions.append(text)
        return self.agrees

    def save_path(self, title, suggestion, kinds):
        return self.path

    def open_path(self, title, kinds):
        return self.path

    def folder_path(self, title, start):
        return self.path

    def copy(self, text):
        self.clipboard = text


class PanelDriver:
    """A panel in a form on the real scene."""

    def __init__(self, host, engine, store, node=None):
        import slicer

        from HSAMSegmentLib.slicer.panels.segment.segment_tab import SegmentTab
        from HSAMSegmentLib.slicer.panels.shell import SceneWatch
        from HSAMSegmentLib.slicer.panels.widgets.model_list import StoreModels

        self.host, self.engine = host, engine
        self.widget = slicer.util.loadUI(str(FORM))
        self.widget.setMRMLScene(slicer.mrmlScene)
        self.widget.show()
        self.answers = Answers()
        self.panel = SegmentTab(self.widget, engine, models=StoreModels(store), dialogs=self.answers)
        self.ui = self.panel.ui
        self.node = node or slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "HSAMSegment")
        self.panel.show_parameters(self.node)
        self._watch = SceneWatch(self.panel.look_at_scene)

    @property
    def status(self):
        """The sentence below the button."""
        return whole_text(self.ui.statusLabel)

    def uncheck(self, row):
        """Take the check mark off an organ."""
        import qt

        self.ui.organList.item(row).setCheckState(qt.Qt.Unchecked)

    def click(self, button):
        """Click as a user does; a button that is off does nothing."""
        button.click()
        self.host.process_events()

    def wait(self, until=None, seconds=90.0):
        """Let the application run until the job has ended, or until something is true."""
        until = until or (lambda: not self.engine.is_busy)
        deadline = time.monotonic() + seconds
        while not until():
            self.host.process_events()
            time.sleep(0.005)
            assert time.monotonic() < deadline, f"waited in vain; the panel says: {self.status}"
        self.host.process_events()

    def segment(self):
        """Click the button and wait for the end."""
        assert self.ui.applyButton.enabled, self.status
        self.click(self.ui.applyButton)
        self.wait()

    def close(self):
        """Take the panel away."""
        self._watch.close()
        self.panel.close()
        self.widget.setMRMLScene(None)
        self.widget.deleteLater()


def segment_names(node):
    """Names of the segments, in order."""
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegment(index).GetName() for index in range(segmentation.GetNumberOfSegments())]


def only_segmentation():
    """The one segmentation of the scene."""
    import slicer

    (node,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return node
