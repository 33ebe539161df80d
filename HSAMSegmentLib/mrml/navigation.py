"""Moves the slice views to a voxel of a scan."""

from __future__ import annotations

import slicer

from HSAMSegmentLib.mrml.volume_bridge import ijk_to_world


def show_scan(volume_node) -> None:
    """Show a scan in the slice views, as the user would by choosing it."""
    selection = slicer.app.applicationLogic().GetSelectionNode()
    selection.SetActiveVolumeID(volume_node.GetID())
    slicer.app.applicationLogic().PropagateVolumeSelection(0)


def jump_to_voxel(volume_node, ijk: tuple[int, int, int]) -> None:
    """Center all slice views on a voxel."""
    position = ijk_to_world(volume_node, ijk)
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *position, slicer.vtkMRMLSliceNode.CenteredJumpSlice)


def active_scan():
    """The scan that the slice views show, or None."""
    identifier = slicer.app.applicationLogic().GetSelectionNode().GetActiveVolumeID()
    return slicer.mrmlScene.GetNodeByID(identifier) if identifier else None
