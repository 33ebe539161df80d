"""Drives one tab in tests: the tab with its form on the real scene, answers, and waiting."""

from __future__ import annotations

import time

from panel_driver import REPOSITORY, Answers
from panel_layout import whole_text


class TabAnswers(Answers):
    """Also answers which folder is meant."""

    def __init__(self):
        super().__init__()
        self.folder = ""

    def folder_path(self, title, start):
        return self.folder


class TabDriver:
    """One tab, built as the shell builds it."""

    def __init__(self, host, build, engine, models=None, node=None):
        import slicer

        from HSAMSegmentLib.slicer.panels.dependencies import Dependencies
        from HSAMSegmentLib.slicer.panels.shell import SceneWatch
        from HSAMSegmentLib.slicer.panels.tabs import TabContext
        from HSAMSegmentLib.slicer.panels.widgets.model_list import StoreModels

        self.host = host
        self.answers = TabAnswers()
        self.opened = []
        context = TabContext(
            engine=engine,
            models=models or StoreModels(),
            dialogs=self.answers,
            dependencies=Dependencies(self.answers),
            load_form=self._load_form,
            open_tab=self.opened.append,
        )
        self.tab = build(context)
        self.ui = self.tab.ui
        self.tab.widget.show()
        self.node = node or slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "HSAMSegment")
        self.tab.show_parameters(self.node)
        self._watch = SceneWatch(self.tab.look_at_scene)

    @property
    def status(self):
        """The sentence below the button."""
        return whole_text(self.ui.statusLabel)

    def click(self, button):
        """Click as a user does; a button that is off does nothing."""
        button.click()
        self.host.process_events()

    def wait(self, until, seconds=120.0):
        """Let the application run until something is true."""
        deadline = time.monotonic() + seconds
        while not until():
            self.host.process_events()
            time.sleep(0.005)
            assert time.monotonic() < deadline, f"waited in vain; the panel says: {self.status}"
        self.host.process_events()

    def close(self):
        """Take the tab away."""
        self._watch.close()
        self.tab.close()
        self.tab.widget.setMRMLScene(None)
        self.tab.widget.deleteLater()

    @staticmethod
    def _load_form(name):
        import slicer

        widget = slicer.util.loadUI(str(REPOSITORY / "HSAMSegment" / "Resources" / "UI" / name))
        widget.setMRMLScene(slicer.mrmlScene)
        return widget


def table_texts(table):
    """What a table widget shows."""
    return [
        [item.text() if (item := table.item(row, column)) else "" for column in range(table.columnCount)]
        for row in range(table.rowCount)
    ]


def masks(node, scan):
    """Segment name to its mask on the grid of a scan."""
    import slicer

    return {
        node.GetSegmentation().GetSegment(identifier).GetName(): slicer.util.arrayFromSegmentBinaryLabelmap(
            node, identifier, scan
        )
        > 0
        for identifier in node.GetSegmentation().GetSegmentIDs()
    }


def ras_to_ijk(volume):
    """The matrix from the world to the voxels of a volume."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetRASToIJKMatrix(matrix)
    return matrix


def ijk_to_ras(volume):
    """The matrix from the voxels of a volume to the world."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix
