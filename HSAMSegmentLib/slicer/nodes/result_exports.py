"""A result goes on: Slicer's statistics of it, a DICOM Segmentation by Slicer's own exporter, and files."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _

from HSAMSegmentLib.errors import OutputError, RequestError
from HSAMSegmentLib.slicer.nodes.segmentations.segments import INSTANCES, LABELMAP, SURFACE, complete_codes

SEGMENTATION_SUFFIXES = (".seg.nrrd", ".seg.nhdr")
LABEL_MAP_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
SURFACE_SUFFIXES = (".stl", ".obj")


def segment_statistics(segmentation_node, volume_node=None):
    """Volumes, intensities and surfaces of all segments in a new table, computed and shown by Segment Statistics.

    Args:
        segmentation_node: the segments.
        volume_node: for intensities; None for none.

    Returns:
        The table node.

    Raises:
        RequestError: if this Slicer has no Segment Statistics.
    """
    module = _import(
        "SegmentStatistics", _("This Slicer has no module Segment Statistics. Install it, or save a report.")
    )
    logic = module.SegmentStatisticsLogic()
    parameters = logic.getParameterNode()
    parameters.SetParameter("Segmentation", segmentation_node.GetID())
    if volume_node is not None:
        parameters.SetParameter("ScalarVolume", volume_node.GetID())
    else:
        parameters.UnsetParameter("ScalarVolume")
    name = slicer.mrmlScene.GenerateUniqueName(_("{name} statistics").format(name=segmentation_node.GetName()))
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
    parameters.SetParameter("MeasurementsTable", table.GetID())
    logic.computeStatistics()
    logic.exportToTable(table)
    logic.showTable(table)
    return table


def dicom_problem(volume_node) -> str:
    """Why a result on this scan cannot become a DICOM Segmentation, as a sentence; empty if it can."""
    if volume_node is None:
        return _("The scan is not in the scene any more, and a DICOM Segmentation refers to it.")
    if not (volume_node.GetAttribute(INSTANCES) or "").split():
        return _(
            "'{name}' was not loaded from DICOM, and a DICOM Segmentation refers to DICOM images. Load the scan with "
            "Add DICOM Data, or export files."
        ).format(name=volume_node.GetName())
    return ""


def export_dicom_segmentation(segmentation_node, volume_node, folder: str | Path) -> Path:
    """Write a DICOM Segmentation with Slicer's own exporter; what it would ask for is in the nodes already.

    Args:
        segmentation_node: the segments; empty ones are left out.
        volume_node: their scan, loaded from DICOM.
        folder: where the file goes; it is made if it is not there.

    Returns:
        The file.

    Raises:
        RequestError: if the scan is not from DICOM, this Slicer has no exporter, or nothing is in the segments.
        OutputError: if the exporter fails; with its own words.
    """
    problem = dicom_problem(volume_node)
    if problem:
        raise RequestError(problem)
    plugin = _import(
        "DICOMSegmentationPlugin",
        _(
            "This Slicer cannot write DICOM Segmentations. Use Slicer 5.12 or later, or install the extension "
            "QuantitativeReporting; or export files."
        ),
    )
    filled = [
        identifier for identifier in _segment_ids(segmentation_node) if not _is_empty(segmentation_node, identifier)
    ]
    if not filled:
        raise RequestError(_("'{name}' has no voxel to export.").format(name=segmentation_node.GetName()))
    folder = Path(folder)
    name = f"{_file_name(segmentation_node.GetName())}.dcm"
    if (folder / name).exists():
        raise OutputError(_("{path} exists already. Choose another folder.").format(path=folder / name))
    complete_codes(segmentation_node)
    exporter = plugin.DICOMSegmentationExporter(segmentation_node)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        metadata = {"SeriesDescription": segmentation_node.GetName()}
        exporter.export(str(folder), name, metadata, segmentIDs=filled, skipEmpty=True)
    except Exception as error:  # whatever the exporter raises is for the user to read
        raise OutputError(_("The DICOM Segmentation was not written: {reason}").format(reason=error)) from error
    finally:
        exporter.cleanup()
    return folder / name


def export_file(segmentation_node, volume_node, path: str | Path) -> Path:
    """Write all segments to a file; what it becomes follows from its ending.

    Args:
        segmentation_node: the segments.
        volume_node: their scan, whose grid a label map gets; not needed for the other kinds.
        path: `.seg.nrrd` keeps names, colors and codes; `.nii.gz`, `.nrrd` or `.mha` is a label map; `.stl` or `.obj`
            is all surfaces in one file, in mm and LPS as other programs expect.

    Returns:
        The file.

    Raises:
        RequestError: if the ending is unknown, or a label map has no scan.
        OutputError: if it cannot be written.
    """
    path = Path(path).expanduser().absolute()  # Slicer would put a relative one beside the scene's file
    name = path.name.lower()
    if name.endswith(SEGMENTATION_SUFFIXES):
        written = slicer.util.saveNode(segmentation_node, str(path), {})
    elif name.endswith(SURFACE_SUFFIXES):
        written = _export_surfaces(segmentation_node, path)
    elif name.endswith(LABEL_MAP_SUFFIXES):
        written = _export_label_map(segmentation_node, volume_node, path)
    else:
        known = ", ".join((*SEGMENTATION_SUFFIXES[:1], *LABEL_MAP_SUFFIXES, *SURFACE_SUFFIXES))
        raise RequestError(_("'{name}' has no known ending. Use one of {known}.").format(name=path.name, known=known))
    if not written or not path.is_file():
        raise OutputError(_("{path} cannot be written. Choose another place.").format(path=path))
    return path


def _export_label_map(segmentation_node, volume_node, path: Path) -> bool:
    if volume_node is None:
        raise RequestError(_("The scan is gone, whose grid a label map would have. Export as .seg.nrrd."))
    label_map = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", path.name)
    try:
        logic = slicer.modules.segmentations.logic()
        identifiers = _string_array(_segment_ids(segmentation_node))
        logic.ExportSegmentsToLabelmapNode(segmentation_node, identifiers, label_map, volume_node)
        label_map.SetAndObserveTransformNodeID(None)
        return slicer.util.saveNode(label_map, str(path), {})
    finally:
        _remove_with_its_own(label_map)


def _export_surfaces(segmentation_node, path: Path) -> bool:
    """All surfaces in one file; the logic names it after the segmentation, so it is written aside and moved."""
    segmentation = segmentation_node.GetSegmentation()
    had_surfaces = segmentation.ContainsRepresentation(SURFACE)
    segmentation_node.CreateClosedSurfaceRepresentation()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        logic, identifiers = slicer.modules.segmentations.logic(), _string_array(_segment_ids(segmentation_node))
        kind, in_lps, scale, in_one_file = path.suffix[1:].upper(), True, 1.0, True
        logic.ExportSegmentsClosedSurfaceRepresentationToFiles(
            folder, segmentation_node, identifiers, kind, in_lps, scale, in_one_file
        )
        files = sorted(Path(folder).glob(f"*{path.suffix.lower()}")) or sorted(Path(folder).iterdir())
        if files:
            files[0].replace(path)
    if not had_surfaces:
        segmentation_node.RemoveClosedSurfaceRepresentation()
    return bool(files)


def _remove_with_its_own(label_map) -> None:
    """Remove a label map with the nodes that were made for it: display, colors, storage."""
    display = label_map.GetDisplayNode()
    colors = display.GetColorNode() if display is not None else None
    for node in (label_map.GetStorageNode(), label_map, display, colors):
        if node is not None and node.GetSingletonTag() is None:
            slicer.mrmlScene.RemoveNode(node)


def _segment_ids(segmentation_node) -> list[str]:
    return list(segmentation_node.GetSegmentation().GetSegmentIDs())


def _is_empty(segmentation_node, identifier: str) -> bool:
    """Whether a segment has no voxel; its image may hold the voxels of others."""
    segment = segmentation_node.GetSegmentation().GetSegment(identifier)
    image = segment.GetRepresentation(LABELMAP)
    if image is None or image.GetPointData().GetScalars() is None:
        return True
    from vtk.util.numpy_support import vtk_to_numpy

    return not (vtk_to_numpy(image.GetPointData().GetScalars()) == segment.GetLabelValue()).any()


def _string_array(texts) -> vtk.vtkStringArray:
    array = vtk.vtkStringArray()
    for text in texts:
        array.InsertNextValue(text)
    return array


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in " -_." else "-" for letter in name).strip() or "segmentation"


def _import(name: str, sentence: str):
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise RequestError(sentence) from error
