"""Undo: brings a segmentation back to what it was before the last result."""

from __future__ import annotations

import slicer


class SegmentationHistory:
    """Remembers one segmentation before it is written to.

    Where the user switched the scene's own undo on, the state is saved there, too.
    """

    def __init__(self) -> None:
        self._node = None
        self._is_new = False
        self._saved = None

    def remember(self, segmentation_node) -> None:
        """Keep what an existing segmentation holds now."""
        self._save_in_scene(segmentation_node)
        self._node, self._is_new = segmentation_node, False
        self._saved = slicer.vtkSegmentation()
        self._saved.DeepCopy(segmentation_node.GetSegmentation())

    def remember_new(self, segmentation_node) -> None:
        """Note that a segmentation was not there before."""
        self._node, self._is_new, self._saved = segmentation_node, True, None

    @property
    def can_undo(self) -> bool:
        """Whether there is a result to take back, and its segmentation still exists."""
        return self._node is not None and self._node.GetScene() is slicer.mrmlScene

    def undo(self) -> None:
        """Take the last result back; does nothing if there is none."""
        if self.can_undo and self._is_new:
            slicer.mrmlScene.RemoveNode(self._node)
        elif self.can_undo:
            modified = self._node.StartModify()
            self._node.GetSegmentation().DeepCopy(self._saved)
            self._node.EndModify(modified)
        self.forget()

    def forget(self) -> None:
        """Keep nothing, for example because the scene was closed."""
        self._node, self._saved = None, None

    @staticmethod
    def _save_in_scene(segmentation_node) -> None:
        if slicer.mrmlScene.GetUndoFlag():
            segmentation_node.SetUndoEnabled(True)
            slicer.mrmlScene.SaveStateForUndo(segmentation_node)
