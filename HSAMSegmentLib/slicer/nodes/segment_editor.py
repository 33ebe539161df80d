"""Opens a segmentation in the Segment Editor, on the scan that it belongs to."""

from __future__ import annotations

import slicer

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.runtime.translation import tr as _


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
