"""A result goes on: statistics, DICOM Segmentation, files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_nodes_segmentations import add_volume, blocks, make_outcome
from test_nodes_volumes import OBLIQUE

from HSAMSegmentLib.errors import OutputError, RequestError

pytestmark = pytest.mark.host


@pytest.fixture
def exports(scene):
    from HSAMSegmentLib.slicer.nodes import result_exports

    return result_exports


@pytest.fixture
def scan(scene):
    scan = add_volume(OBLIQUE)
    import slicer

    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene).CreateItem(
        slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene).GetSceneItemID(), scan
    )
    scan.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
    return scan


@pytest.fixture
def organs(scan, tmp_path):
    """A result as a job writes it: a liver, a right kidney, and a spleen that is there but empty."""
    from HSAMSegmentLib.slicer.nodes.segmentations.segments import create_segmentation, write_outcome

    (tmp_path / "job").mkdir()
    node = create_segmentation(scan, "Scan organs")
    node.GetSegmentation().AddEmptySegment("spleen", "Spleen")
    write_outcome(make_outcome(blocks(), scan, tmp_path / "job"), scan, node)
    return node


def test_statistics_come_with_one_call_into_a_table_in_sight(exports, organs, scan):
    import slicer

    table = exports.segment_statistics(organs, scan)
    assert table.GetName() == "Scan organs statistics"
    rows = dict(zip(*(column_of(table, name) for name in ("Segment", "Voxel count"))))
    assert int(rows["Liver"]) == (blocks() == 1).sum()
    from SegmentStatistics import SegmentStatisticsLogic

    assert SegmentStatisticsLogic.shown[-1] is table
    assert exports.segment_statistics(organs, scan) is not table
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 2


def column_of(table, name):
    column = table.GetTable().GetColumnByName(name)
    return [column.GetValue(row) for row in range(column.GetNumberOfValues())]


def test_slicers_exporter_needs_nothing_more_and_empty_segments_are_left_out(exports, organs, scan, tmp_path):
    path = exports.export_dicom_segmentation(organs, scan, tmp_path / "out")
    data = json.loads(path.read_text())
    assert data["images"] == ["1.2.3", "1.2.4"]
    assert [(item["label"], item["code"]) for item in data["segments"]] == [
        ("Liver", "10200004"),
        ("Right kidney", "64033007"),
    ]
    assert {item["DICOM.SegmentAlgorithmType"] for item in data["segments"]} == {"AUTOMATIC"}
    assert {item["DICOM.SegmentAlgorithmName"] for item in data["segments"]} == {"Phantom"}
    with pytest.raises(OutputError, match="exists already"):
        exports.export_dicom_segmentation(organs, scan, tmp_path / "out")


def test_the_data_module_finds_the_images_of_a_result(exports, organs, scene):
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(organs)
    assert hierarchy.GetItemAttribute(item, "DICOM.ReferencedInstanceUIDs") == "1.2.3 1.2.4"


def test_a_segment_without_a_code_is_exported_as_tissue(exports, organs, scan, tmp_path):
    import slicer

    mask = (blocks() == 1).astype(np.uint8)
    organs.GetSegmentation().AddEmptySegment("mine", "Mine")
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, organs, "mine", scan)
    organs.GetSegmentation().GetSegment("mine").RemoveTag("TerminologyEntry")
    data = json.loads(exports.export_dicom_segmentation(organs, scan, tmp_path).read_text())
    assert data["segments"][-1]["label"] == "Mine"
    assert data["segments"][-1]["code"] == "85756007"


def test_why_a_dicom_segmentation_cannot_be_written_is_a_sentence(exports, organs, scan, tmp_path, monkeypatch):
    scan.SetAttribute("DICOM.instanceUIDs", "missing.1 1.2.4")
    with pytest.raises(OutputError, match="was not written: Referenced volume files were not found"):
        exports.export_dicom_segmentation(organs, scan, tmp_path)
    scan.RemoveAttribute("DICOM.instanceUIDs")
    with pytest.raises(RequestError, match="was not loaded from DICOM"):
        exports.export_dicom_segmentation(organs, scan, tmp_path)
    with pytest.raises(RequestError, match="not in the scene any more"):
        exports.export_dicom_segmentation(organs, None, tmp_path)
    scan.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    monkeypatch.setitem(__import__("sys").modules, "DICOMSegmentationPlugin", None)
    with pytest.raises(RequestError, match="cannot write DICOM Segmentations"):
        exports.export_dicom_segmentation(organs, scan, tmp_path)


def test_a_label_map_has_the_grid_of_the_scan_voxel_by_voxel(exports, organs, scan, scene, tmp_path):
    import slicer

    nodes = scene.GetNumberOfNodes()
    path = exports.export_file(organs, scan, tmp_path / "organs.nii.gz")
    assert scene.GetNumberOfNodes() == nodes, "nothing stays behind in the scene"
    loaded = slicer.util.loadLabelVolume(str(path), {})
    matrices = [slicer.util.arrayFromVTKMatrix(_ijk_to_ras(node)) for node in (loaded, scan)]
    assert np.allclose(*matrices, atol=1e-4)
    found = slicer.util.arrayFromVolume(loaded)
    assert np.array_equal(found > 0, blocks() > 0)
    assert len(set(np.unique(found[blocks() == 1]))) == 1


def _ijk_to_ras(volume):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


def test_a_segmentation_file_keeps_names_and_codes(exports, organs, tmp_path):
    from HSAMSegmentLib.labels.segmentation_files import read_segmentation

    path = exports.export_file(organs, None, tmp_path / "organs.seg.nrrd")
    labels = {label.name: label for label in read_segmentation(path).labels}
    assert labels["Liver"].terminology.type.value == "10200004"


@pytest.mark.parametrize("ending", ["stl", "obj"])
def test_surfaces_are_one_file_and_leave_the_scene_as_it_was(exports, organs, scene, tmp_path, ending):
    nodes = scene.GetNumberOfNodes()
    path = exports.export_file(organs, None, tmp_path / f"organs.{ending}")
    assert path.stat().st_size > 1000
    assert scene.GetNumberOfNodes() == nodes
    assert not organs.GetSegmentation().ContainsRepresentation("Closed surface")
    assert [item.name for item in tmp_path.iterdir() if item.is_file()] == [path.name]


def test_an_unknown_ending_and_a_folder_that_is_not_there_are_refused(exports, organs, scan, tmp_path):
    with pytest.raises(RequestError, match="no known ending"):
        exports.export_file(organs, scan, tmp_path / "organs.docx")
    with pytest.raises(RequestError, match="The scan is gone"):
        exports.export_file(organs, None, tmp_path / "organs.nii.gz")
