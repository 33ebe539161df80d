"""Every format of results keeps the rules: whole or not at all, no silent replacement, done once in a folder."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from segment_requests import segment_all_to, segment_to
from small_models import brightness_model, write_bundle
from small_scans import write_dicom_series, write_scan

from HSAMSegmentLib.errors import OutputError, RequestError
from HSAMSegmentLib.export import dicom_seg
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.labels.grids import resample_array
from HSAMSegmentLib.labels.segmentation_files import read_segmentation
from HSAMSegmentLib.report.segmentation_report import read_report
from HSAMSegmentLib.weights.catalog import Catalog
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.workflows.results.folder_statistics import write_folder_table

pytest.importorskip("highdicom", reason="highdicom writes DICOM Segmentations: pip install highdicom")
pytest.importorskip("skimage", reason="surfaces need scikit-image: pip install scikit-image")
pytest.importorskip("trimesh", reason="surfaces need trimesh: pip install trimesh")

OPTIONS = SegmentOptions(threads=1)
SURFACES = ["stl", "obj", "vtp"]
DICOM = ["dicom-seg", "rtstruct"]
SUFFIXES = {"dicom-seg": ".seg.dcm", "rtstruct": ".rtstruct.dcm", "stl": ".stl", "obj": ".obj", "vtp": ".vtp"}


def run(source, output, **changes):
    return segment_to(source, output, **{"model": brightness_model(), "options": OPTIONS, **changes})


@pytest.fixture
def series(tmp_path):
    return write_dicom_series(tmp_path / "series")


def run_folder(source, output, bundle, **changes):
    store = Store(output.parent / "store", catalog=Catalog(()), builtin=output.parent / "none")
    return segment_all_to(source, output, **{"model": bundle, "store": store, "options": OPTIONS, **changes})


def statuses(output) -> dict[str, tuple[str, str]]:
    with open(output / "summary.csv", newline="", encoding="utf-8") as stream:
        return {row["scan"]: (row["status"], row["message"]) for row in csv.DictReader(stream)}


@pytest.mark.parametrize("kind", DICOM)
def test_a_dicom_result_holds_the_labels_of_the_result(series, tmp_path, kind):
    result = run(series, tmp_path / "out.dcm", format=kind, report=tmp_path / "out.json")
    found = read_segmentation(tmp_path / "out.dcm", grid=result.segmentation.geometry)
    array = resample_array(found.array, found.geometry, result.segmentation.geometry)
    for label in found.labels:
        value = result[label.name].label.value
        np.testing.assert_array_equal(array == label.value, result.segmentation.array == value)
    assert {label.name for label in found.labels} == {item.label.name for item in result.found}
    assert read_report(tmp_path / "out.json")["record"]["output"]["name"] == "out.dcm"


def test_the_ending_dcm_means_a_dicom_segmentation(series, tmp_path):
    import pydicom

    run(series, tmp_path / "out.dcm")
    assert pydicom.dcmread(tmp_path / "out.dcm").Modality == "SEG"
    run(series, tmp_path / "out.rtstruct.dcm")
    assert pydicom.dcmread(tmp_path / "out.rtstruct.dcm").Modality == "RTSTRUCT"


@pytest.mark.parametrize("kind", DICOM)
def test_a_nifti_scan_is_refused_before_the_network_runs(tmp_path, kind):
    scan = write_scan(tmp_path / "scan.nii.gz")
    stages = []
    with pytest.raises(OutputError, match="the scan is not a DICOM series"):
        run(scan, tmp_path / "out.dcm", format=kind, progress=lambda progress: stages.append(progress.stage))
    assert set(stages) <= {"Reading the scan", "Loading the model"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.nii.gz"]


def test_a_missing_package_is_told_before_the_scan_is_read(series, tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_seg, "find_spec", lambda name: None)
    stages = []
    with pytest.raises(RequestError, match="pip install 'hsamsegment"):
        run(series, tmp_path / "out.dcm", progress=lambda progress: stages.append(progress.stage))
    assert stages == []


@pytest.mark.parametrize("kind", [*DICOM, *SURFACES])
def test_an_existing_result_is_replaced_only_on_request(series, tmp_path, kind):
    path = tmp_path / f"out{SUFFIXES[kind]}"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        run(series, path)
    assert path.read_text() == "mine"
    run(series, path, overwrite=True)
    assert path.read_bytes() != b"mine"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [path.name, "series"]


def test_a_full_disk_leaves_the_older_result(series, tmp_path, monkeypatch):
    path = tmp_path / "out.dcm"
    run(series, path)
    before = path.read_bytes()

    def full(self, *arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pydicom.dataset.Dataset.save_as", full)
    with pytest.raises(OutputError, match="The disk is full"):
        run(series, path, overwrite=True)
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.dcm", "series"]


@pytest.mark.parametrize("kind", [*DICOM, *SURFACES])
def test_a_folder_of_scans_gets_them_too_and_is_not_done_twice(tmp_path, kind):
    write_dicom_series(tmp_path / "in" / "patient")
    write_scan(tmp_path / "in" / "file.nii.gz")
    bundle = write_bundle(tmp_path / "models", "tiny")
    run_folder(tmp_path / "in", tmp_path / "out", bundle, suffix=kind)
    first = statuses(tmp_path / "out")
    assert first["patient"][0] == "done"
    assert (tmp_path / "out" / f"patient{SUFFIXES[kind]}").is_file()
    if kind in DICOM:
        assert first["file"][0] == "failed"
        assert "the scan is not a DICOM series" in first["file"][1]
    else:
        assert first["file"][0] == "done"
    before = (tmp_path / "out" / f"patient{SUFFIXES[kind]}").read_bytes()
    run_folder(tmp_path / "in", tmp_path / "out", bundle, suffix=kind)
    assert statuses(tmp_path / "out")["patient"][0] == "done before"
    assert (tmp_path / "out" / f"patient{SUFFIXES[kind]}").read_bytes() == before


def test_results_beside_the_scan_are_no_part_of_it(tmp_path):
    folder = write_dicom_series(tmp_path / "in")
    bundle = write_bundle(tmp_path / "models", "tiny")
    for _ in range(2):
        run_folder(folder, folder / "results", bundle, suffix="dicom-seg")
    assert statuses(folder / "results") == {"in": ("done before", "")}


def test_an_unknown_format_is_refused_before_any_work(tmp_path):
    write_scan(tmp_path / "in" / "file.nii.gz")
    with pytest.raises(RequestError, match="There is no format 'mesh'; choose one of"):
        run_folder(tmp_path / "in", tmp_path / "out", write_bundle(tmp_path / "models", "tiny"), suffix="mesh")
    assert not (tmp_path / "out").exists()


def rows_of(path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_statistics_of_one_scan_are_those_of_its_result(series, tmp_path):
    result = run(series, tmp_path / "out.seg.nrrd", statistics=tmp_path / "out.csv", report=tmp_path / "out.json")
    rows = rows_of(tmp_path / "out.csv")
    assert [row["structure"] for row in rows] == [item.label.name for item in result.labels]
    for row, item in zip(rows, result.labels):
        assert float(row["volume_ml"]) == pytest.approx(item.volume_ml, rel=1e-6)
        assert float(row["confidence"]) == pytest.approx(item.confidence, rel=1e-6)
    by_name = {row["structure"]: row for row in rows}
    # What the model calls left is left in the picture, which is the patient's right.
    assert float(by_name["bright left"]["centroid_r_mm"]) > 10
    assert float(by_name["bright right"]["centroid_r_mm"]) < -10
    stored = read_report(tmp_path / "out.json")["measurements"]["structures"]
    assert [item["voxels"] for item in stored] == [item.voxels for item in result.labels]


def test_statistics_are_an_output_like_the_others(series, tmp_path):
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        run(series, tmp_path / "out.seg.nrrd", statistics=tmp_path / "out.csv")
    with pytest.raises(OutputError, match=r"a \.csv file"):
        run(series, tmp_path / "out.seg.nrrd", statistics=tmp_path / "out.xlsx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "series"]


def test_a_folder_has_one_table_that_a_second_run_completes(tmp_path):
    for name in ("a", "b"):
        write_scan(tmp_path / "in" / f"{name}.nii.gz")
    bundle, out, table = write_bundle(tmp_path / "models", "tiny"), tmp_path / "out", tmp_path / "all.csv"
    for expected in (["a", "b"], ["a", "b", "c"]):
        result = run_folder(tmp_path / "in", out, bundle)
        reports = [item.output.with_name(f"{item.scan.name}.report.json") for item in result.scans]
        assert write_folder_table(reports, out, table) == []
        assert list(dict.fromkeys(row["scan"] for row in rows_of(table))) == expected
        write_scan(tmp_path / "in" / "c.nii.gz")
    assert {row["output"] for row in rows_of(table)} == {"a.seg.nrrd", "b.seg.nrrd", "c.seg.nrrd"}
    table.write_text("my own notes")
    with pytest.raises(OutputError, match="exists already"):
        write_folder_table(reports, out, table)
    assert table.read_text() == "my own notes"
