"""What a segmentation node tells of the model that made it: which one, on which scan, and which slices it doubts."""

from __future__ import annotations

import json
import logging

import slicer

from HSAMSegmentLib.report.correction_slices import DoubtfulSlice
from HSAMSegmentLib.runtime.serialization import from_plain
from HSAMSegmentLib.slicer.nodes.segmentations.segments import DOUBTS_ATTRIBUTE, MODEL_ATTRIBUTE, SOURCE_ROLE

logger = logging.getLogger(__name__)


def model_of(segmentation_node) -> str:
    """Id of the model that made a segmentation, empty if none did."""
    return (segmentation_node.GetAttribute(MODEL_ATTRIBUTE) or "") if segmentation_node is not None else ""


def scan_of(segmentation_node):
    """The scan that a segmentation was made of, or drawn on; None if unknown."""
    if segmentation_node is None:
        return None
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return segmentation_node.GetNodeReference(SOURCE_ROLE) or segmentation_node.GetNodeReference(role)


def doubts_of(segmentation_node) -> tuple[DoubtfulSlice, ...]:
    """The slices that the model doubts, most first; none where they are not known."""
    text = segmentation_node.GetAttribute(DOUBTS_ATTRIBUTE) if segmentation_node is not None else None
    if not text:
        return ()
    try:
        return tuple(from_plain(DoubtfulSlice, item) for item in json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        logger.warning("The doubtful slices of a scene cannot be read: %s", error)
        return ()


def newest_result():
    """The segmentation of the scene that a model made last, or None."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    made = [node for node in nodes if model_of(node)]
    return made[-1] if made else None
