"""Moves the slice views to a voxel of a scan."""

from __future__ import annotations

import slicer

from HSAMSegmentLib.mrml.volume_bridge import ijk_to_world


def jump_to_voxel(volume_node, ijk: tuple[int, int, int]) -> None:
    """Center all slice views on a voxel."""
    position = ijk_to_world(volume_node, ijk)
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *position, slicer.vtkMRMLSliceNode.CenteredJumpSlice)


def active_scan():
    """The scan that the slice views show, or None."""
    identifier = slicer.app.applicationLogic().GetSelectionNode().GetActiveVolumeID()
    return slicer.mrmlScene.GetNodeByID(identifier) if identifier else None
