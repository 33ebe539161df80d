"""Moves the slice views to a voxel of a scan, and opens a segmentation in the Segment Editor on its scan."""

from __future__ import annotations

import slicer

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.runtime.translation import tr as _
from HSAMSegmentLib.slicer.nodes.segment_session import is_in_scene
from HSAMSegmentLib.slicer.nodes.volumes import ijk_to_world


def jump_to_voxel(volume_node, ijk: tuple[int, int, int]) -> None:
    """Center all slice views on a voxel."""
    jump_to_world(ijk_to_world(volume_node, ijk))


def jump_to_world(position: tuple[float, float, float]) -> None:
    """Center all slice views on a place in world RAS mm."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *position, slicer.vtkMRMLSliceNode.CenteredJumpSlice)


def active_scan():
    """The scan that the slice views show, or None."""
    identifier = slicer.app.applicationLogic().GetSelectionNode().GetActiveVolumeID()
    return slicer.mrmlScene.GetNodeByID(identifier) if identifier else None


def show_scan(volume_node) -> None:
    """Show a scan in all slice views."""
    logic = slicer.app.applicationLogic()
    logic.GetSelectionNode().SetActiveVolumeID(volume_node.GetID())
    logic.PropagateVolumeSelection()


def set_visible(segmentation_node, visible: bool) -> None:
    """Show or hide a segmentation, if it is still in the scene."""
    if is_in_scene(segmentation_node) and segmentation_node.GetDisplayNode() is not None:
        segmentation_node.GetDisplayNode().SetVisibility(visible)


def open_in_segment_editor(segmentation_node, volume_node) -> None:
    """Switch to the Segment Editor.

    Raises:
        HSAMSegmentError: if this application has none.
    """
    module = getattr(slicer.modules, "segmenteditor", None)
    if module is None:
        raise HSAMSegmentError(_("This application has no Segment Editor. Correct the segmentation in 3D Slicer."))
    slicer.util.selectModule("SegmentEditor")
    editor = module.widgetRepresentation().self().editor
    editor.setSegmentationNode(segmentation_node)
    editor.setSourceVolumeNode(volume_node)
