"""What tests of a part of the panel stand on: the part with its form on the real scene, answers, and waiting."""

from __future__ import annotations

import time

from panel_stand import REPOSITORY, Answers


class PartAnswers(Answers):
    """Also answers which folder is meant."""

    def __init__(self):
        super().__init__()
        self.folder = ""

    def folder_path(self, title, start):
        return self.folder


class PartStand:
    """One part, built as the shell builds it."""

    def __init__(self, host, build, engine, models=None, node=None):
        import slicer

        from HSAMSegmentLib.slicer.panels.dependencies import Dependencies
        from HSAMSegmentLib.slicer.panels.scene_watch import SceneWatch
        from HSAMSegmentLib.slicer.panels.tabs import PartContext
        from HSAMSegmentLib.slicer.panels.widgets.model_list import StoreModels

        self.host = host
        self.answers = PartAnswers()
        self.opened = []
        context = PartContext(
            engine=engine,
            models=models or StoreModels(),
            dialogs=self.answers,
            dependencies=Dependencies(self.answers),
            load_form=self._load_form,
            open_part=self.opened.append,
        )
        self.part = build(context)
        self.ui = self.part.ui
        self.part.widget.show()
        self.node = node or slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "HSAMSegment")
        self.part.show_parameters(self.node)
        self._watch = SceneWatch(self.part.look_at_scene)

    @property
    def status(self):
        """The sentence below the button."""
        return self.ui.statusLabel.text

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
        """Take the part away."""
        self._watch.close()
        self.part.close()
        self.part.widget.setMRMLScene(None)
        self.part.widget.deleteLater()

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
