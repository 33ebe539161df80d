"""A sequence (4-D) frame by frame: each frame becomes a scan for the time of its job, the results a sequence again."""

from __future__ import annotations

import slicer
import vtk
from slicer.i18n import tr as _

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.slicer.nodes.segment_session import BoundRequest, Written, is_in_scene
from HSAMSegmentLib.slicer.nodes.volumes import volume_problem

SEQUENCE_CLASS = "vtkMRMLSequenceNode"


def sequences_missing() -> str:
    """Why there are no sequences in this application, as a sentence; empty if there are."""
    if hasattr(slicer, SEQUENCE_CLASS) and hasattr(slicer.modules, "sequences"):
        return ""
    return _("This application has no Sequences module. Segment the frames as single volumes, or use a folder.")


def sequence_problem(node) -> str:
    """Why a sequence cannot be segmented, as a sentence; empty if it can."""
    if node is None:
        return _("Choose a sequence.")
    if node.GetNumberOfDataNodes() == 0:
        return _("'{name}' has no frames.").format(name=node.GetName())
    if not node.GetNthDataNode(0).IsA("vtkMRMLScalarVolumeNode"):
        return _("'{name}' is not a sequence of volumes.").format(name=node.GetName())
    return ""


class FrameResults:
    """The segmentations of a sequence, shown together with their frames as soon as the first one is there."""

    def __init__(self, sequence_node) -> None:
        self._sequence = sequence_node
        self._name = _("{scan} organs").format(scan=sequence_node.GetName())
        self._results = None

    @property
    def transform_id(self) -> str | None:
        """Parent transform of the frame that is shown now; the results go under the same one."""
        browser = self._browser()
        shown = browser.GetProxyNode(self._sequence) if browser is not None else None
        return shown.GetTransformNodeID() if shown is not None else None

    def put(self, index_value: str, segmentation_node) -> str:
        """Add what was found in a frame; returns the name of the sequence."""
        results = self._made()
        results.SetDataNodeAtValue(segmentation_node, index_value)
        self._share_transform(results)
        return results.GetName()

    def go_to(self, number: int) -> None:
        """Show a frame, and what was found in it."""
        if is_in_scene(self._sequence) and self._browser() is not None:
            self._browser().SetSelectedItemNumber(number)

    def _made(self):
        if not is_in_scene(self._results):
            name = slicer.mrmlScene.GenerateUniqueName(self._name)
            self._results = slicer.mrmlScene.AddNewNodeByClass(SEQUENCE_CLASS, name)
            self._results.SetIndexName(self._sequence.GetIndexName())
            self._results.SetIndexUnit(self._sequence.GetIndexUnit())
            self._results.SetIndexType(self._sequence.GetIndexType())
            browser = self._browser() or self._new_browser()
            self._fill_with_nothing()
            browser.AddSynchronizedSequenceNodeID(self._results.GetID())
        return self._results

    def _fill_with_nothing(self) -> None:
        """Give every frame an empty segmentation: one without result would show that of another frame."""
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", self._name)
        empty.CreateDefaultDisplayNodes()
        for number in range(self._sequence.GetNumberOfDataNodes()):
            self._results.SetDataNodeAtValue(empty, self._sequence.GetNthIndexValue(number))
        slicer.mrmlScene.RemoveNode(empty)

    def _share_transform(self, results) -> None:
        """Put what is shown of the results under the transform of what is shown of the sequence."""
        slicer.modules.sequences.logic().UpdateAllProxyNodes()
        browser = self._browser()
        shown = browser.GetProxyNode(results) if browser is not None else None
        if shown is not None and shown.GetTransformNodeID() != self.transform_id:
            shown.SetAndObserveTransformNodeID(self.transform_id)

    def _browser(self):
        return slicer.modules.sequences.logic().GetFirstBrowserNodeForSequenceNode(self._sequence)

    def _new_browser(self):
        browser = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLSequenceBrowserNode", f"{self._sequence.GetName()} browser"
        )
        browser.SetAndObserveMasterSequenceNodeID(self._sequence.GetID())
        return browser


class FrameItem:
    """One frame."""

    def __init__(self, sequence_node, number: int, results: FrameResults) -> None:
        self._sequence, self._number, self._results = sequence_node, number, results
        self._value = sequence_node.GetNthIndexValue(number)
        unit = sequence_node.GetIndexUnit() or ""
        self.name = f"{sequence_node.GetName()}, {sequence_node.GetIndexName() or 'frame'} {self._value} {unit}".strip()
        self._made: list = []

    def problem(self) -> str:
        """Why it cannot be segmented."""
        if not is_in_scene(self._sequence):
            return _("The sequence was removed before its turn came.")
        return volume_problem(self._sequence.GetDataNodeAtValue(self._value))

    def bound(self, make) -> BoundRequest:
        """The request for a volume that shares the voxels of the frame, in the scene but hidden.

        Raises:
            RequestError: if the frame is gone.
        """
        frame = self._sequence.GetDataNodeAtValue(self._value)
        if frame is None:
            raise RequestError(_("The frame was removed before its turn came."))
        scan = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScalarVolumeNode")
        scan.UnRegister(None)
        scan.SetName(self.name)
        scan.SetHideFromEditors(True)
        scan.SetSaveWithScene(False)
        matrix = vtk.vtkMatrix4x4()
        frame.GetIJKToRASMatrix(matrix)
        scan.SetIJKToRASMatrix(matrix)
        scan.SetAndObserveImageData(frame.GetImageData())
        if frame.GetAttribute("DICOM.Modality"):
            scan.SetAttribute("DICOM.Modality", frame.GetAttribute("DICOM.Modality"))
        slicer.mrmlScene.AddNode(scan)
        scan.SetAndObserveTransformNodeID(self._results.transform_id)
        self._made = [scan]
        return make(scan)

    def keep(self, written: Written) -> str:
        """Put the segmentation into the sequence of results."""
        self._made.append(written.segmentation_node)
        return self._results.put(self._value, written.segmentation_node)

    def drop(self) -> None:
        """Remove the nodes of the job."""
        for node in self._made:
            if is_in_scene(node):
                slicer.mrmlScene.RemoveNode(node)
        self._made = []

    def show(self) -> None:
        """Go to the frame in the browser of the sequence, which shows its result along with it."""
        self._results.go_to(self._number)

    def hide(self) -> None:
        """The browser shows one frame at a time."""
