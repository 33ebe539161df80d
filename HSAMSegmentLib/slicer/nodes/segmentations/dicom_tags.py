"""What a DICOM Segmentation has to say of its segments and its scan, put into the nodes where Slicer looks for it."""

from __future__ import annotations

from collections.abc import Iterable

import slicer
import vtk

from HSAMSegmentLib.labels.label_set import Code, Terminology
from HSAMSegmentLib.labels.terminology import terminology_from_tag, terminology_tag

ALGORITHM_TYPE, ALGORITHM_NAME = "DICOM.SegmentAlgorithmType", "DICOM.SegmentAlgorithmName"
INSTANCES, REFERENCED_INSTANCES = "DICOM.instanceUIDs", "DICOM.ReferencedInstanceUIDs"
_TISSUE = Code("SCT", "85756007", "Tissue")
_UNKNOWN = Terminology(_TISSUE, _TISSUE)
"""The code that Slicer gives to a segment without one."""


def describe_algorithm(segmentation_node, names: Iterable[str], title: str) -> None:
    """Note in segments that a model made them, which a DICOM Segmentation has to say.

    Args:
        segmentation_node: where they are.
        names: of the segments.
        title: of the model.
    """
    segmentation = segmentation_node.GetSegmentation()
    for name in names:
        segment = segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName(name))
        if segment is not None:
            segment.SetTag(ALGORITHM_TYPE, "AUTOMATIC")
            segment.SetTag(ALGORITHM_NAME, title)


def refer_to_scan(segmentation_node, volume_node) -> None:
    """Tell the subject hierarchy which DICOM images a segmentation was made on, as Slicer's exporter asks for it."""
    hierarchy = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    instances = volume_node.GetAttribute(INSTANCES) or ""
    item = hierarchy.GetItemByDataNode(segmentation_node) if hierarchy is not None else 0
    if item and instances:
        hierarchy.SetItemAttribute(item, REFERENCED_INSTANCES, instances)


def complete_codes(segmentation_node) -> None:
    """Give segments without a code that of a tissue, since a DICOM Segmentation has a code for each."""
    segmentation = segmentation_node.GetSegmentation()
    for identifier in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(identifier)
        name, tag = segment.GetTerminologyEntryTagName(), vtk.mutable("")
        segment.GetTag(name, tag)
        if terminology_from_tag(str(tag)) is None:
            segment.SetTag(name, terminology_tag(_UNKNOWN))
