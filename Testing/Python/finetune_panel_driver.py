"""Drives the Fine-tune tab in tests: the tab in the host, scans with labels as nodes, clicks and waiting."""

from __future__ import annotations

import time

import numpy as np
from panel_driver import REPOSITORY, Answers
from panel_layout import whole_text

FORMS = REPOSITORY / "HSAMSegment" / "Resources" / "UI"


class FinetunePanelDriver:
    """The Fine-tune tab on the real scene, with a store of its own."""

    def __init__(self, host, store, engine=None, node=None):
        import slicer

        from HSAMSegmentLib.slicer.panels.dependencies import Dependencies
        from HSAMSegmentLib.slicer.panels.engine import Engine
        from HSAMSegmentLib.slicer.panels.finetune.finetune_tab import FinetuneTab
        from HSAMSegmentLib.slicer.panels.tabs import TabContext
        from HSAMSegmentLib.slicer.panels.widgets.model_list import StoreModels

        self.host, self.store = host, store
        self.answers = Answers()
        self.shared_engine = Engine()
        context = TabContext(
            engine=self.shared_engine,
            models=StoreModels(store),
            dialogs=self.answers,
            dependencies=Dependencies(self.answers),
            load_form=self._load_form,
            open_tab=lambda key: None,
        )
        self.tab = FinetuneTab(context, engine)
        self.ui = self.tab.ui
        self.tab.widget.resize(520, 1100)
        self.tab.widget.show()
        self.node = node or slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "HSAMSegment")
        self.tab.show_parameters(self.node)

    @staticmethod
    def _load_form(name):
        import slicer

        widget = slicer.util.loadUI(str(FORMS / name))
        widget.setMRMLScene(slicer.mrmlScene)
        return widget

    @property
    def status(self):
        """The sentence below the buttons."""
        return whole_text(self.ui.finetuneStatusLabel)

    def choose(self, volume, segmentation):
        """Choose a pair in the two lists."""
        self.ui.finetuneScanSelector.setCurrentNode(volume)
        self.ui.finetuneSegmentationSelector.setCurrentNode(segmentation)

    def add(self, volume, segmentation):
        """Choose a pair and click Add."""
        self.choose(volume, segmentation)
        assert self.ui.addPairButton.enabled, self.ui.addPairButton.toolTip
        self.click(self.ui.addPairButton)

    def click(self, button):
        """Click as a user does; a button that is off does nothing."""
        button.click()
        self.host.process_events()

    def cells(self, table, column):
        """Texts of a column."""
        return [table.item(row, column).text() for row in range(table.rowCount)]

    def wait(self, until, seconds=240.0):
        """Let the application run until something is true."""
        deadline = time.monotonic() + seconds
        while not until():
            self.host.process_events()
            time.sleep(0.005)
            assert time.monotonic() < deadline, f"waited in vain; the panel says: {self.status}"
        self.host.process_events()

    def wait_for_end(self, seconds=240.0):
        """Until the fine-tuning has ended."""
        self.wait(lambda: not self.tab.run.is_busy, seconds)

    def finetune(self, seconds=240.0):
        """Click Start and wait for the end."""
        assert self.ui.startButton.enabled, self.status
        self.click(self.ui.startButton)
        self.wait_for_end(seconds)

    def close(self):
        """Take everything away."""
        self.tab.close()
        self.tab.widget.setMRMLScene(None)
        self.tab.widget.deleteLater()
        self.shared_engine.close()


def add_volume(volume, name=None):
    """A volume node with the voxels and the place of a volume."""
    import slicer

    node = slicer.util.addVolumeFromArray(np.ascontiguousarray(volume.array), volume.geometry.ijk_to_ras, name)
    node.SetName(name or volume.name)
    node.SetAttribute("DICOM.Modality", volume.modality)
    return node


def add_segmentation(volume_node, labels, names, name="Drawn"):
    """A segmentation node whose segments share one label image, on the grid of a volume node."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    segmentation = node.GetSegmentation()
    for value, organ in names.items():
        identifier = segmentation.AddEmptySegment(f"segment-{value}", organ)
        mask = (labels == value).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, identifier, volume_node)
    return node


def small_labels(pair):
    """One array in which every voxel with a label is 1."""
    import slicer

    volume, segmentation = pair
    merged = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    for identifier in segmentation.GetSegmentation().GetSegmentIDs():
        merged[slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, volume) > 0] = 1
    return merged
