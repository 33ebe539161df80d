"""A corrected segmentation becomes a DICOM object of its scan, a surface, a table."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from small_scans import bright_boxes, write_dicom_series, write_scan

from HSAMSegmentLib.errors import OutputError, RequestError, VolumeError
from HSAMSegmentLib.export.formats import save_segmentation
from HSAMSegmentLib.export.source_images import Origin
from HSAMSegmentLib.labels.grids import resample_array
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.segmentation_files import read_segmentation
from HSAMSegmentLib.labels.terminology import label_set_of
from HSAMSegmentLib.workflows.results.convert import ConvertRequest, convert_labels

NAMES = {2: "liver", 6: "right kidney"}


@pytest.fixture
def labels(tmp_path):
    """A file of labels on the grid of the boxes, without the scan's first slices, as Slicer crops it."""
    scan = bright_boxes()
    array = np.zeros(scan.geometry.shape, np.uint8)
    array[3:9, 20:40, 8:20], array[4:8, 20:40, 40:55] = 2, 6
    origin = (scan.geometry.ijk_to_lps @ [0, 0, 2, 1])[:3]
    cropped = replace(scan.geometry, size=(60, 50, 10), origin_mm=tuple(float(part) for part in origin))
    path = tmp_path / "corrected.seg.nrrd"
    save_segmentation(Segmentation(array[2:], cropped, label_set_of(NAMES)), path, Origin())
    return path


def place(path, grid):
    found = read_segmentation(path, grid=grid)
    array = resample_array(found.array, found.geometry, grid)
    return {label.name: array == label.value for label in found.labels}


@pytest.mark.parametrize("kind", ["dicom-seg", "rtstruct"])
def test_a_corrected_segmentation_becomes_a_dicom_object_of_its_scan(labels, tmp_path, kind):
    pytest.importorskip("highdicom", reason="highdicom writes DICOM Segmentations: pip install highdicom")
    series, grid = write_dicom_series(tmp_path / "series"), bright_boxes().geometry
    convert_labels(ConvertRequest(labels, tmp_path / "out.dcm", series, format=kind))
    expected, found = place(labels, grid), place(tmp_path / "out.dcm", grid)
    assert set(found) == set(NAMES.values())
    for name, mask in expected.items():
        np.testing.assert_array_equal(found[name], mask)
    data = pydicom.dcmread(tmp_path / "out.dcm")
    if kind == "dicom-seg":
        assert data.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"
    else:
        assert data.StructureSetROISequence[0].ROIGenerationAlgorithm == "SEMIAUTOMATIC"


def test_values_of_a_plain_label_map_get_names_and_their_codes(labels, tmp_path):
    convert_labels(ConvertRequest(labels, tmp_path / "plain.nii.gz"))
    for beside in tmp_path.glob("*.labels.json"):
        beside.unlink()
    convert_labels(
        ConvertRequest(tmp_path / "plain.nii.gz", tmp_path / "out.seg.nrrd", names={6: "spleen", 2: "liver"})
    )
    found = {label.value: label for label in read_segmentation(tmp_path / "out.seg.nrrd").labels}
    assert {value: label.name for value, label in found.items()} == {2: "liver", 6: "spleen"}
    assert found[6].terminology == label_set_of({6: "spleen"}).labels[0].terminology


def test_statistics_have_intensities_with_the_scan_only(labels, tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz")
    convert_labels(ConvertRequest(labels, scan=scan, statistics=tmp_path / "with.csv"))
    convert_labels(ConvertRequest(labels, tmp_path / "organs.nii.gz", statistics=tmp_path / "without.csv"))
    tables = []
    for name in ("with.csv", "without.csv"):
        with open(tmp_path / name, newline="", encoding="utf-8") as stream:
            tables.append(list(csv.DictReader(stream)))
    assert [row["median"] for row in tables[0]] == ["200.0", "200.0"]
    assert [row["median"] for row in tables[1]] == ["", ""]
    assert [row["volume_ml"] for row in tables[0]] == [row["volume_ml"] for row in tables[1]]
    assert set(place(tmp_path / "organs.nii.gz", bright_boxes().geometry)) == set(NAMES.values())


def test_what_cannot_be_is_said_before_anything_is_written(labels, tmp_path):
    with pytest.raises(RequestError, match="nothing to do"):
        convert_labels(ConvertRequest(labels))
    scan = write_scan(tmp_path / "scan.nii.gz")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match="the scan is not a DICOM series"):
        convert_labels(ConvertRequest(labels, tmp_path / "out.rtstruct.dcm", scan, statistics=tmp_path / "s.csv"))
    with pytest.raises(RequestError, match="at the same time"):
        convert_labels(ConvertRequest(labels, labels, overwrite=True))
    with pytest.raises(OutputError, match="exists already"):
        convert_labels(ConvertRequest(labels, scan))
    elsewhere = replace(bright_boxes(), geometry=replace(bright_boxes().geometry, origin_mm=(900.0, 900.0, 900.0)))
    far = write_scan(tmp_path / "far.nii.gz", elsewhere)
    with pytest.raises(VolumeError, match="do not overlap"):
        convert_labels(ConvertRequest(labels, tmp_path / "out.nii.gz", far))
    far.unlink()
    assert sorted(tmp_path.iterdir()) == before
