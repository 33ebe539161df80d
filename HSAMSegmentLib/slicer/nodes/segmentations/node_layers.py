"""What is in a segmentation or label map of the scene, read without changing it: structures, layers, grids."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.labels.label_set import Label, LabelSet, Terminology
from HSAMSegmentLib.labels.layered_segmentation import LayeredSegmentation, LayeredStructure
from HSAMSegmentLib.labels.terminology import (
    fallback_color,
    find_structure,
    label_for,
    terminology_from_tag,
    unique_name,
)
from HSAMSegmentLib.slicer.nodes.segmentations.segments import LABELMAP
from HSAMSegmentLib.slicer.nodes.volumes import volume_geometry

_NOTHING_SAID = "85756007"
"""The code (tissue) that Slicer gives a segment before anybody said what it is."""

_MOST_STRUCTURES = 255
_LARGEST_COUNTED = 1_000_000


def with_labelmaps(segmentation_node):
    """The node's own segmentation, or a copy with label images where it has only surfaces or contours.

    Raises:
        RequestError: if no label images can be made.
    """
    segmentation = segmentation_node.GetSegmentation()
    if segmentation.GetNumberOfSegments() == 0 or segmentation.ContainsRepresentation(LABELMAP):
        return segmentation
    copied = slicer.vtkSegmentation()
    copied.DeepCopy(segmentation)
    if not copied.CreateRepresentation(LABELMAP):
        sentence = _(
            "'{name}' has no label maps, and none can be made of what it has. Draw on it in the Segment Editor, or "
            "choose another one."
        )
        raise RequestError(sentence.format(name=segmentation_node.GetName()))
    return copied


def labelmap_of(segment):
    """The label image of a segment, None if it has none or one without voxels."""
    image = segment.GetRepresentation(LABELMAP)
    is_empty = image is None or image.GetPointData().GetScalars() is None or 0 in image.GetDimensions()
    return None if is_empty else image


def image_array(image) -> np.ndarray:
    """A view (k, j, i) of an image's scalars."""
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def image_geometry(image, to_target: np.ndarray) -> Geometry:
    """The grid of an oriented image.

    Args:
        image: its matrix is that of index (0, 0, 0), which its extent may not contain.
        to_target: 4 x 4 matrix from its coordinates to those of the grid (RAS).
    """
    to_world = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(to_world)
    return geometry_from_ras(to_target @ slicer.util.arrayFromVTKMatrix(to_world), image.GetExtent())


def geometry_from_ras(ijk_to_ras: np.ndarray, extent: tuple[int, ...]) -> Geometry:
    """A grid from its 4 x 4 matrix and the first and last index along i, j and k."""
    ijk_to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ ijk_to_ras
    origin = ijk_to_lps @ [*extent[0::2], 1.0]
    spacing = np.linalg.norm(ijk_to_lps[:3, :3], axis=0)
    return Geometry(
        size=tuple(int(extent[2 * axis + 1] - extent[2 * axis] + 1) for axis in range(3)),
        spacing_mm=tuple(float(value) for value in spacing),
        origin_mm=tuple(float(value) for value in origin[:3]),
        direction=tuple(float(value) for value in (ijk_to_lps[:3, :3] / spacing).ravel()),
    )


def segment_terminology(segment) -> Terminology | None:
    """The code of a segment, None where there is none."""
    tag = vtk.mutable("")
    if not segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), tag):
        return None
    found = terminology_from_tag(tag.get())
    return None if found is None or found.type.value == _NOTHING_SAID else found


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


def node_layers(node) -> LayeredSegmentation:
    """The voxels of a node, placed in the world; names are made unique.

    Raises:
        RequestError: if it holds nothing, or a transform bends it.
    """
    problem = node_problem(node)
    if problem:
        raise RequestError(problem)
    to_world = _to_world(node)
    if node.IsA("vtkMRMLSegmentationNode"):
        return _segmentation_layers(node, to_world, tuple(node_labels(node)))
    grid = _placed(volume_geometry(node), to_world)
    labels = zip(node_labels(node), _values_of(node))
    structures = tuple(LayeredStructure(label, 0, value) for label, value in labels)
    return LayeredSegmentation(node.GetName(), ((slicer.util.arrayFromVolume(node), grid),), structures, grid)


def layers_on_scan(segmentation_node, volume_node) -> LayeredSegmentation:
    """The voxels of a segmentation, placed in the coordinate system of a scan; names are those of the segments.

    Raises:
        RequestError: if a segment has no label image and none can be made, or if a transform that is not linear lies
            between scan and segmentation.
    """
    segmentation = segmentation_node.GetSegmentation()
    segments = (segmentation.GetNthSegment(position) for position in range(segmentation.GetNumberOfSegments()))
    to_scan = _to_scan(segmentation_node, volume_node)
    return _segmentation_layers(segmentation_node, to_scan, [_label(segment) for segment in segments])


def _segmentation_layers(node, to_target: np.ndarray, labels: Sequence[Label]) -> LayeredSegmentation:
    """The label images of a segmentation with at least one segment; views of the memory of the node, or of a copy."""
    segmentation = with_labelmaps(node)
    images: list = []
    structures = []
    for position, label in enumerate(labels):
        segment = segmentation.GetNthSegment(position)
        image = labelmap_of(segment)
        if image is None:
            structures.append(LayeredStructure(label, None, 0))
            continue
        if image not in images:
            images.append(image)
        structures.append(LayeredStructure(label, images.index(image), int(segment.GetLabelValue())))
    layers = tuple((image_array(image), image_geometry(image, to_target)) for image in images)
    return LayeredSegmentation(node.GetName(), layers, tuple(structures), _scan_grid(segmentation, to_target))


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
