"""From a volume node to an array, its geometry and what tells the body part; from a ROI node to voxel bounds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import Volume, guess_modality

# Voxel centers this far (in voxels) outside of a region still count as inside: rounding of the corners.
_TOLERANCE = 1e-6

_SAMPLES_PER_AXIS = 64
_BODY_PART, _SERIES, _STUDY, _PROTOCOL = "0018,0015", "0008,103e", "0008,1030", "0018,1030"


def volume_problem(node) -> str:
    """Why a volume node cannot be segmented, as a sentence for the user; empty if it can."""
    if node is None:
        return _("Choose a scan.")
    name = node.GetName()
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        return _("'{name}' is a label map, not a scan. Choose the scan that it was drawn on.").format(name=name)
    if not node.IsA("vtkMRMLScalarVolumeNode"):
        return _("'{name}' is not a volume of gray values. Choose a CT or MR scan.").format(name=name)
    image = node.GetImageData()
    if image is None or 0 in image.GetDimensions() or image.GetPointData().GetScalars() is None:
        return _("'{name}' has no image data. Load the scan again, or choose another one.").format(name=name)
    if image.GetNumberOfScalarComponents() != 1:
        return _(
            "'{name}' has {count} values per voxel (a color or vector volume). Choose a scan with one gray value per "
            "voxel."
        ).format(name=name, count=image.GetNumberOfScalarComponents())
    return ""


def volume_array(node) -> np.ndarray:
    """The voxels (k, j, i) of a volume node: a view of its memory, not a copy.

    Raises:
        RequestError: if the node cannot be segmented.
    """
    problem = volume_problem(node)
    if problem:
        raise RequestError(problem)
    return slicer.util.arrayFromVolume(node)


def volume_geometry(node) -> Geometry:
    """The grid of a volume node in its own coordinate system, without parent transforms (the result shares them)."""
    directions = np.zeros((3, 3))
    node.GetIJKToRASDirections(directions)
    ras_to_lps = np.diag([-1.0, -1.0, 1.0])
    return Geometry(
        size=tuple(int(size) for size in node.GetImageData().GetDimensions()),
        spacing_mm=tuple(float(value) for value in node.GetSpacing()),
        origin_mm=tuple(float(value) for value in ras_to_lps @ np.asarray(node.GetOrigin())),
        direction=tuple(float(value) for value in (ras_to_lps @ directions).ravel()),
    )


def dicom_series(node) -> str:
    """Instance UID of the DICOM series that a volume node was loaded from, empty if it came from elsewhere."""
    hierarchy = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")  # asking its class would add one
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    return hierarchy.GetItemUID(item, slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName()) if item else ""


def roi_bounds(roi_node, volume_node) -> tuple[int, int, int, int, int, int]:
    """Voxels of a volume whose centers lie in the box around a ROI node, whatever transforms either has.

    Returns:
        (i0, i1, j0, j1, k0, k1), upper bounds excluded.

    Raises:
        RequestError: if the ROI does not touch the volume.
    """
    corners = np.asarray([_world_to_ijk(volume_node, corner) for corner in _roi_corners(roi_node)])
    low, high = corners.min(axis=0), corners.max(axis=0)
    bounds = []
    for axis, size in enumerate(volume_node.GetImageData().GetDimensions()):
        start = max(0, math.ceil(low[axis] - _TOLERANCE))
        stop = min(size, math.floor(high[axis] + _TOLERANCE) + 1)
        if start >= stop:
            sentence = _("The region '{region}' does not touch the scan '{scan}'. Move it, or choose no region.")
            raise RequestError(sentence.format(region=roi_node.GetName(), scan=volume_node.GetName()))
        bounds += [start, stop]
    return tuple(bounds)


def ijk_to_world(volume_node, ijk: tuple[int, int, int]) -> tuple[float, float, float]:
    """World RAS position in mm of a voxel center, with the parent transforms of the volume."""
    matrix = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(matrix)
    point = matrix.MultiplyPoint((*(float(index) for index in ijk), 1.0))[:3]
    return _transform(volume_node.GetParentTransformNode(), None, point)


def _world_to_ijk(volume_node, point) -> tuple[float, float, float]:
    local = _transform(None, volume_node.GetParentTransformNode(), point)
    matrix = vtk.vtkMatrix4x4()
    volume_node.GetRASToIJKMatrix(matrix)
    return matrix.MultiplyPoint((*local, 1.0))[:3]


def _transform(source, target, point) -> tuple[float, float, float]:
    """A point from the coordinate system of one transform node (None: the world) into that of another."""
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(source, target, transform)
    return transform.TransformPoint(point)


def _roi_corners(roi_node) -> list[tuple[float, float, float]]:
    """The eight corners of a ROI node in world coordinates."""
    size = np.zeros(3)
    roi_node.GetSizeWorld(size)
    object_to_world = vtk.vtkMatrix4x4()
    object_to_world.DeepCopy(roi_node.GetObjectToWorldMatrix())
    signs = itertools.product((-0.5, 0.5), repeat=3)
    return [object_to_world.MultiplyPoint((*(size * np.asarray(sign)), 1.0))[:3] for sign in signs]


def sampled_volume(volume_node) -> Volume:
    """A scan with its true grid and a sample of its voxels, of which the modality is told if nothing else tells it.

    Raises:
        RequestError: if the node cannot be segmented.
    """
    array = volume_array(volume_node)
    steps = tuple(slice(None, None, max(1, size // _SAMPLES_PER_AXIS)) for size in array.shape)
    sample = array[steps]
    modality = volume_node.GetAttribute("DICOM.Modality") or _dicom_value(volume_node, "0008,0060")
    return Volume(sample, volume_geometry(volume_node), volume_node.GetName(), modality or guess_modality(sample))


def descriptions(volume_node) -> tuple[str, ...]:
    """Texts that may name the body part: what DICOM says first, then the name of the node."""
    tags = (_dicom_value(volume_node, tag) for tag in (_BODY_PART, _SERIES, _STUDY, _PROTOCOL))
    return tuple(text for text in (*tags, volume_node.GetName()) if text)


def _dicom_value(volume_node, tag: str) -> str:
    """A value of the first image that a scan was loaded from; empty if it is not from the DICOM database."""
    instances = (volume_node.GetAttribute("DICOM.instanceUIDs") or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    if not instances or database is None:
        return ""
    return database.instanceValue(instances[0], tag) or ""
