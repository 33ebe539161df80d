"""The label images of a segmentation node as arrays with their place in a scan; nothing in the scene is changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.mrml.segmentation_bridge import LABELMAP
from HSAMSegmentLib.volumes.geometry import Geometry
from HSAMSegmentLib.volumes.labels import Label
from HSAMSegmentLib.volumes.terminology import fallback_color, find_structure, terminology_from_tag

# What Slicer says of a segment before anybody said what it is.
_NOTHING_SAID = "85756007"


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
    segmentation = _with_labelmaps(segmentation_node)
    to_scan = _to_scan(segmentation_node, volume_node)
    images: dict[str, tuple[object, list[SegmentInLayer]]] = {}
    for identifier in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(identifier)
        image = segment.GetRepresentation(LABELMAP)
        if image is None or image.GetPointData().GetScalars() is None or 0 in image.GetDimensions():
            continue
        described = SegmentInLayer(_label(segment), identifier)
        images.setdefault(image.GetAddressAsString(""), (image, []))[1].append(described)
    return [
        Layer(_array(image), _geometry(image, to_scan), tuple(segments), (segmentation, image))
        for image, segments in images.values()
    ]


def _with_labelmaps(segmentation_node):
    """The node's own segmentation, or a copy with label images where it has only other representations."""
    segmentation = segmentation_node.GetSegmentation()
    if segmentation.GetNumberOfSegments() == 0 or segmentation.ContainsRepresentation(LABELMAP):
        return segmentation
    copied = slicer.vtkSegmentation()
    copied.DeepCopy(segmentation)
    if not copied.CreateRepresentation(LABELMAP):
        raise RequestError(
            f"'{segmentation_node.GetName()}' has no label maps, and none can be made of what it has. Draw on it in "
            "the Segment Editor, or choose another one."
        )
    return copied


def _to_scan(segmentation_node, volume_node) -> np.ndarray:
    """4 x 4 matrix from the coordinates of a segmentation to those of a scan (RAS)."""
    source, target = segmentation_node.GetParentTransformNode(), volume_node.GetParentTransformNode()
    if source is target:
        return np.eye(4)
    matrix = vtk.vtkMatrix4x4()
    if not slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(source, target, matrix):
        raise RequestError(
            f"A transform that is not linear lies between '{segmentation_node.GetName()}' and "
            f"'{volume_node.GetName()}'. Harden it first (Transforms module)."
        )
    return _matrix(matrix)


def _array(image) -> np.ndarray:
    """A view (k, j, i) of an image's scalars."""
    i, j, k = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(k, j, i)


def _geometry(image, to_scan: np.ndarray) -> Geometry:
    """The grid of an image whose first voxel has the index of the extent's start."""
    to_world = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(to_world)
    extent = image.GetExtent()
    start = np.eye(4)
    start[:3, 3] = extent[0::2]
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ to_scan @ _matrix(to_world) @ start
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    return Geometry(
        size=tuple(int(size) for size in image.GetDimensions()),
        spacing_mm=tuple(float(value) for value in spacing),
        origin_mm=tuple(float(value) for value in to_lps[:3, 3]),
        direction=tuple(float(value) for value in (to_lps[:3, :3] / spacing).ravel()),
    )


def _matrix(matrix) -> np.ndarray:
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def _label(segment) -> Label:
    known = find_structure(segment.GetName())
    return Label(
        value=int(segment.GetLabelValue()),
        name=segment.GetName(),
        color=tuple(float(part) for part in segment.GetColor()) or fallback_color(1),
        terminology=_terminology(segment) or (known.terminology if known is not None else None),
        single_piece=known.single_piece if known is not None else False,
    )


def _terminology(segment):
    """The code of a segment, None where nobody gave one."""
    tag = vtk.mutable("")
    if not segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), tag):
        return None
    found = terminology_from_tag(tag.get())
    return None if found is None or found.type.value == _NOTHING_SAID else found
