"""Shows finished slices while a job runs: a passing label layer in the slice views, not saved with the scene."""

from __future__ import annotations

import numpy as np
import slicer
import vtk

from HSAMSegmentLib.slicer.nodes.navigation import jump_to_voxel
from HSAMSegmentLib.slicer.nodes.volumes import volume_array
from HSAMSegmentLib.workflows.events import Preview

NODE_NAME = "HSAMSegment preview"
_OPACITY = 0.5


class LivePreview:
    """One label volume for the time of a job; the views show afterwards what they showed before."""

    def __init__(self) -> None:
        self._node = None
        self._before: list[tuple[str, str, float]] = []

    def show(self, volume_node, preview: Preview) -> None:
        """Copy the finished slices and move the views to the last one of them."""
        if self._node is None:
            self._node = _label_volume_like(volume_node)
            self._take_label_layer()
        finished = np.load(preview.array_file, mmap_mode="r")
        shown = slicer.util.arrayFromVolume(self._node)
        for index in preview.slices:
            place = tuple(index if axis == preview.plane else slice(None) for axis in range(3))
            shown[place] = finished[place]
        slicer.util.arrayFromVolumeModified(self._node)
        middle = [size // 2 for size in shown.shape]
        middle[preview.plane] = preview.slices[-1]
        jump_to_voxel(volume_node, tuple(reversed(middle)))

    def clear(self) -> None:
        """Give the views back what they showed, and remove the label volume."""
        for identifier, label, opacity in self._before:
            composite = slicer.mrmlScene.GetNodeByID(identifier)
            if composite is not None:
                composite.SetLabelVolumeID(label or None)
                composite.SetLabelOpacity(opacity)
        self._before = []
        if self._node is not None and self._node.GetScene() is not None:
            slicer.mrmlScene.RemoveNode(self._node)
        self._node = None

    def _take_label_layer(self) -> None:
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            self._before.append((composite.GetID(), composite.GetLabelVolumeID(), composite.GetLabelOpacity()))
            composite.SetLabelVolumeID(self._node.GetID())
            composite.SetLabelOpacity(_OPACITY)


def _label_volume_like(volume_node):
    """An empty label volume on the grid and under the transform of a scan."""
    matrix = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(matrix)
    empty = np.zeros(volume_array(volume_node).shape, np.uint8)
    node = slicer.util.addVolumeFromArray(empty, matrix, NODE_NAME, "vtkMRMLLabelMapVolumeNode")
    node.SetSaveWithScene(False)
    node.SetHideFromEditors(True)
    node.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())
    node.CreateDefaultDisplayNodes()
    return node
