"""The label images of a segmentation node as arrays with their place in a scan; nothing in the scene is changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import vtk

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.labels.label_set import Label
from HSAMSegmentLib.labels.terminology import fallback_color, find_structure
from HSAMSegmentLib.runtime.translation import tr as _
from HSAMSegmentLib.slicer.nodes.segmentations.label_images import (
    image_array,
    image_geometry,
    labelmap_of,
    segment_terminology,
    with_labelmaps,
)


@dataclass(frozen=True)
class SegmentInLayer:
    """One segment.

    Attributes:
        label: name, color and code; the value is its value in the layer.
        segment_id: id in the node.
    """

    label: Label
    segment_id: str


@dataclass(frozen=True)
class Layer:
    """One label image, shared by some segments.

    Attributes:
        array: label values (k, j, i), a view of the node's memory.
        geometry: its grid in the coordinate system of the scan.
        segments: which segments it holds.
        owner: keeps the memory alive.
    """

    array: np.ndarray
    geometry: Geometry
    segments: tuple[SegmentInLayer, ...]
    owner: object


def segment_layers(segmentation_node, volume_node) -> list[Layer]:
    """All label images of a segmentation with at least one segment.

    Raises:
        RequestError: if a segment has no label image and none can be made, or if a transform that is not linear lies
            between scan and segmentation.
    """
    segmentation = with_labelmaps(segmentation_node)
    to_scan = _to_scan(segmentation_node, volume_node)
    images: dict[str, tuple[object, list[SegmentInLayer]]] = {}
    for identifier in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(identifier)
        image = labelmap_of(segment)
        if image is None:
            continue
        described = SegmentInLayer(_label(segment), identifier)
        images.setdefault(image.GetAddressAsString(""), (image, []))[1].append(described)
    return [
        Layer(image_array(image), image_geometry(image, to_scan), tuple(segments), (segmentation, image))
        for image, segments in images.values()
    ]


def _to_scan(segmentation_node, volume_node) -> np.ndarray:
    """4 x 4 matrix from the coordinates of a segmentation to those of a scan (RAS)."""
    source, target = segmentation_node.GetParentTransformNode(), volume_node.GetParentTransformNode()
    if source is target:
        return np.eye(4)
    matrix = vtk.vtkMatrix4x4()
    if not slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(source, target, matrix):
        raise RequestError(
            _(
                "A transform that is not linear lies between '{name}' and '{scan}'. Harden it first (in the module "
                "Transforms)."
            ).format(name=segmentation_node.GetName(), scan=volume_node.GetName())
        )
    return slicer.util.arrayFromVTKMatrix(matrix)


def _label(segment) -> Label:
    known = find_structure(segment.GetName())
    return Label(
        value=int(segment.GetLabelValue()),
        name=segment.GetName(),
        color=tuple(float(part) for part in segment.GetColor()) or fallback_color(1),
        terminology=segment_terminology(segment) or (known.terminology if known is not None else None),
        single_piece=known.single_piece if known is not None else False,
    )
