"""Segmentation nodes: made of the outcome of a job or of a file, and what they tell of the model that made them.

Segments are written fast and without touching anything else. What a DICOM Segmentation has to say of its segments and
its scan is put where Slicer looks for it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from HSAMSegmentLib.errors import RequestError, VolumeError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.labels.label_set import Code, Label, Terminology
from HSAMSegmentLib.labels.terminology import terminology_from_tag, terminology_tag
from HSAMSegmentLib.report.correction_slices import DoubtfulSlice, slices_to_correct
from HSAMSegmentLib.runtime.serialization import from_plain, to_plain
from HSAMSegmentLib.slicer.nodes.segmentations.surfaces import read_surface
from HSAMSegmentLib.slicer.nodes.volumes import volume_geometry
from HSAMSegmentLib.workflows.segment.segment_request import OrganOutcome, SegmentOutcome

ALGORITHM_TYPE, ALGORITHM_NAME = "DICOM.SegmentAlgorithmType", "DICOM.SegmentAlgorithmName"
INSTANCES, REFERENCED_INSTANCES = "DICOM.instanceUIDs", "DICOM.ReferencedInstanceUIDs"
_TISSUE = Code("SCT", "85756007", "Tissue")
_UNKNOWN = Terminology(_TISSUE, _TISSUE)
"""The code that Slicer gives to a segment without one."""

LABELMAP = "Binary labelmap"
SURFACE = "Closed surface"
MODEL_ATTRIBUTE = "HSAMSegment.Model"
DOUBTS_ATTRIBUTE = "HSAMSegment.DoubtfulSlices"
SOURCE_ROLE = "HSAMSegment.SourceVolume"

logger = logging.getLogger(__name__)

OWN_SUFFIXES = (".seg.nrrd", ".seg.nhdr")


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


def segment_id(organ_name: str) -> str:
    """The id under which an organ is found again: its name in small letters, other characters become '-'."""
    return re.sub(r"[^a-z0-9]+", "-", organ_name.lower()).strip("-") or "organ"


def output_problem(segmentation_node, volume_node) -> str:
    """Why a result for this volume cannot go into this segmentation, as a sentence; empty if it can."""
    if segmentation_node is None or segmentation_node.GetSegmentation().GetNumberOfSegments() == 0:
        return ""
    name = segmentation_node.GetName()
    if segmentation_node.GetParentTransformNode() is not volume_node.GetParentTransformNode():
        return _("'{name}' is under another transform than the scan. Choose a new segmentation.").format(name=name)
    reference = segmentation_node.GetNodeReference(segmentation_node.GetReferenceImageGeometryReferenceRole())
    if reference is not None and not has_grid(reference, volume_geometry(volume_node)):
        return _("'{name}' was made on another scan with another grid. Choose a new segmentation.").format(name=name)
    return ""


def has_grid(volume_node, geometry: Geometry) -> bool:
    """Whether a volume node has exactly these voxels in space."""
    return volume_node.GetImageData() is not None and volume_geometry(volume_node) == geometry


def create_segmentation(volume_node, name: str):
    """Add an empty segmentation node on the grid, and under the transform, of a volume node."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", slicer.mrmlScene.GenerateUniqueName(name))
    node.CreateDefaultDisplayNodes()
    _attach(node, volume_node)
    return node


def write_outcome(outcome: SegmentOutcome, volume_node, segmentation_node) -> None:
    """Write the organs of an outcome into a segmentation node.

    Organs that are there already (by id or by name) get new content and keep name, color and id; an organ that was
    asked for and not found becomes empty if it was there. All other segments stay as they are.

    Args:
        outcome: what a job found on this volume.
        volume_node: the scan; its grid must be the outcome's.
        segmentation_node: where the segments go.

    Raises:
        RequestError: if the volume has another grid by now.
    """
    if not has_grid(volume_node, outcome.geometry):
        sentence = _(
            "The scan '{name}' was changed while it was segmented, so the result does not fit it any more. Segment it "
            "again."
        )
        raise RequestError(sentence.format(name=volume_node.GetName()))
    surfaces_shown = segmentation_node.GetSegmentation().ContainsRepresentation(SURFACE)
    modified = segmentation_node.StartModify()
    _attach(segmentation_node, volume_node)
    _write_segments(outcome, segmentation_node)
    describe_algorithm(segmentation_node, [organ.label.name for organ in outcome.found], outcome.model_title)
    segmentation_node.SetAttribute(MODEL_ATTRIBUTE, outcome.model_id)
    doubts = to_plain(slices_to_correct(outcome.report))
    segmentation_node.SetAttribute(DOUBTS_ATTRIBUTE, json.dumps(doubts))
    segmentation_node.SetNodeReferenceID(SOURCE_ROLE, volume_node.GetID())
    segmentation_node.EndModify(modified)
    if segmentation_node.GetDisplayNode() is None:
        segmentation_node.CreateDefaultDisplayNodes()
    if surfaces_shown:
        segmentation_node.CreateClosedSurfaceRepresentation()
    place_in_hierarchy(segmentation_node, volume_node)
    refer_to_scan(segmentation_node, volume_node)


def write_without_scan(outcome: SegmentOutcome, name: str, transform_node=None):
    """Keep an outcome whose scan is gone, or has another grid by now, in a new segmentation on the grid it was made on.

    Args:
        outcome: what a job found.
        name: for the node.
        transform_node: the parent transform that the scan had, or None.

    Returns:
        The segmentation node.
    """
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", slicer.mrmlScene.GenerateUniqueName(name))
    node.CreateDefaultDisplayNodes()
    if transform_node is not None:
        node.SetAndObserveTransformNodeID(transform_node.GetID())
    _write_segments(outcome, node)
    node.SetAttribute(MODEL_ATTRIBUTE, outcome.model_id)
    return node


def shared_labelmap(labels: np.ndarray | None, box: tuple[int, ...], geometry: Geometry):
    """The one image that all segments of an outcome share, cropped to where labels are."""
    image = slicer.vtkOrientedImageData()
    image.SetExtent(box[0], box[1] - 1, box[2], box[3] - 1, box[4], box[5] - 1)
    scalars = vtk.vtkUnsignedCharArray()
    scalars.SetName("ImageScalars")
    if labels is not None:
        scalars.SetNumberOfValues(labels.size)
        vtk_to_numpy(scalars)[:] = labels.ravel()
    image.GetPointData().SetScalars(scalars)
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(geometry.ijk_to_ras.ravel())
    image.SetGeometryFromImageToWorldMatrix(matrix)
    return image


def add_labels(segmentation_node, labels: Iterable[Label], image) -> None:
    """Add a segment per label, all of them in one image."""
    modified = segmentation_node.StartModify()
    for label in labels:
        segment = _labeled_segment(label)
        segment.SetLabelValue(label.value)
        segment.AddRepresentation(LABELMAP, image)
        segmentation_node.GetSegmentation().AddSegment(segment)
    segmentation_node.EndModify(modified)


def place_in_hierarchy(segmentation_node, volume_node) -> None:
    """Put the segmentation under the study or folder of the scan; without the full application nobody else does."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    volume_item = hierarchy.GetItemByDataNode(volume_node)
    parent = hierarchy.GetItemParent(volume_item) if volume_item else hierarchy.GetSceneItemID()
    item = hierarchy.GetItemByDataNode(segmentation_node)
    if not item:
        hierarchy.CreateItem(parent, segmentation_node)
    elif hierarchy.GetItemParent(item) != parent and volume_item:
        hierarchy.SetItemParent(item, parent)


def _attach(segmentation_node, volume_node) -> None:
    # The transform comes first: the other way round the saved file is resampled onto a wrong grid.
    segmentation_node.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())
    segmentation_node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)


def _write_segments(outcome: SegmentOutcome, segmentation_node) -> None:
    segmentation = segmentation_node.GetSegmentation()
    present = {organ.label.value: find_segment(segmentation, organ.label.name) for organ in outcome.organs}
    _empty_segments(segmentation, [identifier for identifier in present.values() if identifier])
    image = shared_labelmap(outcome.read_labels(), outcome.box, outcome.geometry)
    with_surfaces = _may_attach_surfaces(outcome, segmentation, [item for item in present.values() if item])
    for organ in outcome.organs:  # these first: a new segment loses its voxels where the others have none
        if present[organ.label.value] is not None:
            _fill(segmentation.GetSegment(present[organ.label.value]), organ, image, with_surfaces)
    for organ in outcome.organs:
        if present[organ.label.value] is None and organ.found:
            segmentation.AddSegment(_new_segment(organ, image, with_surfaces), segment_id(organ.label.name))


def find_segment(segmentation, organ_name: str) -> str | None:
    """Id of the segment that is this organ: by our id, else by name; None if there is none."""
    if segmentation.GetSegment(segment_id(organ_name)) is not None:
        return segment_id(organ_name)
    return segmentation.GetSegmentIdBySegmentName(organ_name) or None


def _empty_segments(segmentation, identifiers: list[str]) -> None:
    """Take segments out of images that they share with others, so that their old voxels do not stay there."""
    others = [segmentation.GetSegment(item) for item in segmentation.GetSegmentIDs() if item not in identifiers]
    kept_images = [segment.GetRepresentation(LABELMAP) for segment in others]
    for identifier in identifiers:
        segment = segmentation.GetSegment(identifier)
        if segment.GetRepresentation(LABELMAP) in kept_images:  # costs a copy of the image, so only where needed
            segmentation.SeparateSegmentLabelmap(identifier)
        segment.RemoveAllRepresentations()


def _may_attach_surfaces(outcome: SegmentOutcome, segmentation, replaced: list[str]) -> bool:
    """Whether every segment of the node will have a surface: all or none must have one."""
    if not all(organ.surface_file for organ in outcome.found) or not outcome.found:
        return False
    return segmentation.GetNumberOfSegments() == len(replaced) or segmentation.ContainsRepresentation(SURFACE)


def _new_segment(organ: OrganOutcome, image, with_surface: bool):
    segment = _labeled_segment(organ.label)
    _fill(segment, organ, image, with_surface)
    return segment


def _labeled_segment(label: Label):
    segment = slicer.vtkSegment()
    segment.SetName(label.name)
    segment.SetColor(*label.color)
    if label.terminology is not None:
        segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), terminology_tag(label.terminology))
    return segment


def _fill(segment, organ: OrganOutcome, image, with_surface: bool) -> None:
    segment.SetLabelValue(organ.label.value)
    segment.AddRepresentation(LABELMAP, image)
    if with_surface and organ.surface_file:
        segment.AddRepresentation(SURFACE, read_surface(organ.surface_file))


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


def load_segmentation_file(path: str | Path, name: str = ""):
    """Add the segmentation of a file to the scene; a label map becomes a segmentation, too.

    Args:
        path: a .seg.nrrd file of Slicer, or a label map in any image format.
        name: for the node, by default that of the file.

    Returns:
        The segmentation node, on the grid of the file; what reading noted is in its description.

    Raises:
        VolumeError: if there is no such file, or if it is not a segmentation.
    """
    from HSAMSegmentLib.labels.segmentation_files import (
        read_segmentation,  # needs SimpleITK, which a panel opens without
    )

    path = Path(path)
    if path.name.lower().endswith(OWN_SUFFIXES):
        return _load_own(path, name or path.name[: -len(OWN_SUFFIXES[0])])
    read = read_segmentation(path)
    node = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLSegmentationNode", slicer.mrmlScene.GenerateUniqueName(name or read.name)
    )
    node.CreateDefaultDisplayNodes()
    node.SetDescription(" ".join(read.notes))
    size = read.geometry.size
    image = shared_labelmap(read.array, (0, size[0], 0, size[1], 0, size[2]), read.geometry)
    add_labels(node, read.labels, image)
    converter = slicer.vtkSegmentationConverter
    grid = converter.SerializeImageGeometry(image)
    node.GetSegmentation().SetConversionParameter(converter.GetReferenceImageGeometryParameterName(), grid)
    return node


def _load_own(path: Path, name: str):
    from HSAMSegmentLib.io.image_files import read_image

    read_image(path)  # raises for a damaged file, which would end the whole application in Slicer's own reader
    try:
        return slicer.util.loadSegmentation(str(path), {"name": name})
    except RuntimeError as error:
        sentence = _("{path} cannot be read as a segmentation. Look into Slicer's error log.")
        raise VolumeError(sentence.format(path=path)) from error
