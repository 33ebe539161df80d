"""What is in a segmentation or label map of the scene, read without changing it: structures, layers, grids."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.labels.label_set import Label, LabelSet, Terminology
from HSAMSegmentLib.labels.terminology import label_for, unique_name
from HSAMSegmentLib.slicer.nodes.segmentations.label_images import (
    geometry_from_ras,
    image_array,
    image_geometry,
    labelmap_of,
    segment_terminology,
    with_labelmaps,
)
from HSAMSegmentLib.slicer.nodes.volumes import volume_geometry

_MOST_STRUCTURES = 255
_LARGEST_COUNTED = 1_000_000


@dataclass(frozen=True)
class NodeStructure:
    """One structure.

    Attributes:
        label: name, color and code; its value counts the structures of the node from 1.
        layer: number of its layer, None if it has no voxels.
        value: its value there.
    """

    label: Label
    layer: int | None
    value: int


@dataclass(frozen=True)
class NodeLayers:
    """The voxels of a node.

    Attributes:
        structures: what is in it.
        layers: label arrays (k, j, i) in the memory of the node, and their grids in the world.
        grid: of the scan that it was drawn on, in the world, if that is known.
    """

    structures: tuple[NodeStructure, ...]
    layers: tuple[tuple[np.ndarray, Geometry], ...]
    grid: Geometry | None = None


def node_problem(node) -> str:
    """Why a node holds nothing to compare, as a sentence; empty if it does."""
    if node is None:
        return _("Choose a segmentation.")
    name = node.GetName()
    if node.IsA("vtkMRMLSegmentationNode"):
        count = node.GetSegmentation().GetNumberOfSegments()
        if count == 0:
            return _("'{name}' has no segments.").format(name=name)
    elif node.IsA("vtkMRMLLabelMapVolumeNode"):
        if node.GetImageData() is None or node.GetImageData().GetPointData().GetScalars() is None:
            return _("'{name}' has no image data. Load it again.").format(name=name)
        count = len(_values_of(node))
        if count == 0:
            return _("'{name}' is empty.").format(name=name)
    else:
        return _("'{name}' is not a segmentation.").format(name=name)
    if count > _MOST_STRUCTURES:
        sentence = _("'{name}' has {count} structures; {most} is the most that can be compared.")
        return sentence.format(name=name, count=count, most=_MOST_STRUCTURES)
    return _transform_problem(node)


def node_labels(node) -> LabelSet:
    """The structures of a node: names made unique, colors, codes; values count from 1. Reads no voxels of segments."""
    if node.IsA("vtkMRMLSegmentationNode"):
        segmentation = node.GetSegmentation()
        found = [_segment_facts(segmentation.GetNthSegment(n)) for n in range(segmentation.GetNumberOfSegments())]
    else:
        found = [_value_facts(node, value) for value in _values_of(node)]
    labels: list[Label] = []
    for number, (name, color, terminology) in enumerate(found, start=1):
        unique = unique_name(name, [label.name for label in labels], number)
        labels.append(Label(number, unique, color, terminology))
    return LabelSet(tuple(labels))


def node_layers(node) -> NodeLayers:
    """The voxels of a node, placed in the world.

    Raises:
        RequestError: if it holds nothing, or a transform bends it.
    """
    problem = node_problem(node)
    if problem:
        raise RequestError(problem)
    to_world = _to_world(node)
    if node.IsA("vtkMRMLSegmentationNode"):
        return _segmentation_layers(node, to_world)
    grid = _placed(volume_geometry(node), to_world)
    labels = zip(node_labels(node), _values_of(node))
    structures = tuple(NodeStructure(label, 0, value) for label, value in labels)
    return NodeLayers(structures, ((slicer.util.arrayFromVolume(node), grid),), grid)


def _segmentation_layers(node, to_world: np.ndarray) -> NodeLayers:
    segmentation = with_labelmaps(node)
    images: list = []
    structures = []
    for label, position in zip(node_labels(node), range(segmentation.GetNumberOfSegments())):
        segment = segmentation.GetNthSegment(position)
        image = labelmap_of(segment)
        if image is None:
            structures.append(NodeStructure(label, None, 0))
            continue
        if image not in images:
            images.append(image)
        structures.append(NodeStructure(label, images.index(image), int(segment.GetLabelValue())))
    layers = tuple((image_array(image), image_geometry(image, to_world)) for image in images)
    return NodeLayers(tuple(structures), layers, _scan_grid(segmentation, to_world))


def _segment_facts(segment) -> tuple[str, tuple[float, float, float], Terminology | None]:
    """A name that is known says as much as a code."""
    name = segment.GetName() or "Segment"
    return name, tuple(segment.GetColor()), segment_terminology(segment) or label_for(1, name).terminology


def _value_facts(node, value: int) -> tuple[str, tuple[float, float, float], Terminology | None]:
    """What the color table of a label map says of a value."""
    display = node.GetDisplayNode()
    colors = display.GetColorNode() if display is not None else None
    name = colors.GetColorName(value) if colors is not None and value < colors.GetNumberOfColors() else ""
    if not name or name in ("(none)", str(value)) or colors.GetType() not in (colors.User, colors.File):
        name = f"Label {value}"  # Slicer's own tables name values that mean something else
    known = label_for(value, name)
    return name, known.color, known.terminology


def _values_of(node) -> tuple[int, ...]:
    """The values of a label map, background left out, ascending; counted again only after its voxels changed."""
    scalars = node.GetImageData().GetPointData().GetScalars()
    state = (scalars, scalars.GetMTime())
    if _counted.get(node) != state:
        _counted[node] = state
        _values[node] = _count_values(slicer.util.arrayFromVolume(node))
    return _values[node]


_counted: WeakKeyDictionary = WeakKeyDictionary()
_values: WeakKeyDictionary = WeakKeyDictionary()


def _count_values(array: np.ndarray) -> tuple[int, ...]:
    """Slice by slice, and background, which is most of it, only looked at: sorting would stall the application."""
    if array.dtype.kind not in "iu" or array.max(initial=0) > _LARGEST_COUNTED:
        return tuple(int(value) for value in np.unique(array) if value > 0)
    found: set[int] = set()
    for part in array:
        found.update(np.flatnonzero(np.bincount(part[part > 0])).tolist())
    return tuple(sorted(found))


def _scan_grid(segmentation, to_world: np.ndarray) -> Geometry | None:
    name = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    text = segmentation.GetConversionParameter(name)
    image = slicer.vtkOrientedImageData()
    if not text or not slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, image, False):
        return None
    return None if image.IsEmpty() else image_geometry(image, to_world)


def _placed(geometry: Geometry, to_world: np.ndarray) -> Geometry:
    """A grid under a parent transform; unchanged to the last bit under none."""
    if np.array_equal(to_world, np.eye(4)):
        return geometry
    i, j, k = geometry.size
    return geometry_from_ras(to_world @ geometry.ijk_to_ras, (0, i - 1, 0, j - 1, 0, k - 1))


def _to_world(node) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    transform = node.GetParentTransformNode()
    if transform is not None:
        transform.GetMatrixTransformToWorld(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def _transform_problem(node) -> str:
    transform = node.GetParentTransformNode()
    if transform is None or transform.IsTransformToWorldLinear():
        return ""
    sentence = _("'{name}' is under a transform that bends it. Harden the transform first (module Transforms).")
    return sentence.format(name=node.GetName())
