"""The label images of segments: as arrays, with their grids, converted in a copy where there are none."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.labels.label_set import Terminology
from HSAMSegmentLib.labels.terminology import terminology_from_tag
from HSAMSegmentLib.slicer.nodes.segmentations.segments import LABELMAP

_NOTHING_SAID = "85756007"
"""The code (tissue) that Slicer gives a segment before anybody said what it is."""


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
