"""Stand-in for the logic of Slicer's Segment Statistics: voxel counts and mean intensities, in a table."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic


class SegmentStatisticsLogic(ScriptedLoadableModuleLogic):
    """Same calls in the same order as the module's own panel makes them."""

    shown: list = []  # noqa: RUF012 - tables that were brought into sight

    def __init__(self, parent=None):
        super().__init__(parent)
        self._rows = []

    def computeStatistics(self):
        parameters = self.getParameterNode()
        segmentation = slicer.mrmlScene.GetNodeByID(parameters.GetParameter("Segmentation"))
        volume = slicer.mrmlScene.GetNodeByID(parameters.GetParameter("ScalarVolume"))
        self._rows = []
        for identifier in segmentation.GetSegmentation().GetSegmentIDs():
            mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, volume) > 0
            mean = float(slicer.util.arrayFromVolume(volume)[mask].mean()) if mask.any() else float("nan")
            name = segmentation.GetSegmentation().GetSegment(identifier).GetName()
            self._rows.append((name, int(np.count_nonzero(mask)), mean))

    def exportToTable(self, table):
        columns = [list(column) for column in zip(*self._rows)]
        for name, values in zip(("Segment", "Voxel count", "Mean"), columns):
            array = vtk.vtkStringArray()
            array.SetName(name)
            for value in values:
                array.InsertNextValue(str(value))
            table.AddColumn(array)

    def showTable(self, table):
        self.shown.append(table)
