"""From a scan on disk to organs on disk."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from segment_requests import segment_to
from small_models import brightness_model, write_bundle
from small_scans import bright_boxes, write_dicom_series, write_scan

from HSAMSegmentLib.errors import (
    CancelledError,
    CheckpointError,
    ModelNotFoundError,
    OutputError,
    RequestError,
    VolumeError,
)
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.io.volume_files import list_series
from HSAMSegmentLib.labels.segmentation_files import read_segmentation
from HSAMSegmentLib.report.segmentation_report import read_report
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.weights.catalog import Catalog
from HSAMSegmentLib.weights.store import Store

OPTIONS = SegmentOptions(threads=1)


def run(source, output, **changes):
    return segment_to(source, output, **{"model": brightness_model(), "device": "cpu", "options": OPTIONS, **changes})


def empty_store(tmp_path, *bundles) -> Store:
    store = Store(tmp_path / "store", catalog=Catalog(()), builtin=tmp_path / "none")
    for bundle in bundles:
        store.import_file(bundle)
    return store


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".nrrd", ".nii.gz", ".nii", ".mha"])
def test_the_written_labels_are_those_of_the_segmenter(tmp_path, suffix):
    scan = write_scan(tmp_path / "scan.nii.gz")
    result = run(scan, tmp_path / f"out{suffix}")
    written = read_segmentation(tmp_path / f"out{suffix}")
    expected = Segmenter(brightness_model(), device="cpu", options=OPTIONS).segment(bright_boxes())
    np.testing.assert_array_equal(written.array, expected.segmentation.array)
    np.testing.assert_array_equal(written.array, result.segmentation.array)
    np.testing.assert_allclose(written.geometry.ijk_to_lps, bright_boxes().geometry.ijk_to_lps, atol=1e-5)
    assert [label.name for label in written.labels] == ["bright left", "bright right", "gray"]


def test_preview_and_report_are_written_beside_it(tmp_path):
    scan = write_scan(tmp_path / "scan.nrrd")
    run(scan, tmp_path / "out.seg.nrrd", preview=tmp_path / "out.png", report=tmp_path / "out.json")
    report = read_report(tmp_path / "out.json")
    assert report["input"]["path"] == str(scan)
    assert report["output"] == str(tmp_path / "out.seg.nrrd")
    assert report["record"]["model"]["id"] == "brightness"
    assert (tmp_path / "out.png").read_bytes()[:4] == b"\x89PNG"


def test_a_dicom_folder_is_a_scan(tmp_path):
    folder = write_dicom_series(tmp_path / "dicom")
    result = run(folder, tmp_path / "out.seg.nrrd")
    assert result.segmentation.geometry.size == (60, 50, 12)
    assert {item.label.name for item in result.found} == {"bright left", "bright right", "gray"}


def test_the_report_names_the_dicom_series_even_if_it_is_the_only_one(tmp_path):
    folder = write_dicom_series(tmp_path / "dicom")
    run(folder, tmp_path / "a.seg.nrrd", report=tmp_path / "a.json")
    (only,) = list_series(folder)
    assert read_report(tmp_path / "a.json")["input"]["dicom_series"] == only.id
    write_dicom_series(folder, number=2, description="T1")
    run(folder, tmp_path / "b.seg.nrrd", report=tmp_path / "b.json", series="2")
    second = read_report(tmp_path / "b.json")["input"]["dicom_series"]
    assert second in {series.id for series in list_series(folder)} - {only.id}
    run(folder, tmp_path / "c.seg.nrrd", report=tmp_path / "c.json", series=second)
    assert read_report(tmp_path / "c.json")["input"]["dicom_series"] == second
    run(write_scan(tmp_path / "scan.nii.gz"), tmp_path / "d.seg.nrrd", report=tmp_path / "d.json")
    assert read_report(tmp_path / "d.json")["input"]["dicom_series"] is None


def test_one_of_several_series_can_be_named(tmp_path):
    folder = write_dicom_series(tmp_path / "dicom")
    write_dicom_series(folder, number=2, description="T1")
    with pytest.raises(VolumeError, match="T1"):
        run(folder, tmp_path / "out.seg.nrrd")
    assert run(folder, tmp_path / "out.seg.nrrd", series="2").found


@pytest.mark.parametrize("which", ["out.seg.nrrd", "out.png", "out.json"])
def test_an_existing_output_stops_before_the_work_and_is_kept(tmp_path, which):
    scan = write_scan(tmp_path / "scan.nii.gz")
    (tmp_path / which).write_text("mine")
    outputs = {"preview": tmp_path / "out.png", "report": tmp_path / "out.json"}
    started = []
    with pytest.raises(OutputError, match="exists already"):
        run(scan, tmp_path / "out.seg.nrrd", progress=started.append, **outputs)
    assert started == []
    assert (tmp_path / which).read_text() == "mine"
    run(scan, tmp_path / "out.seg.nrrd", overwrite=True, **outputs)
    assert read_report(tmp_path / "out.json")["labels"]


def test_names_beside_a_nifti_count_as_an_output(tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz")
    (tmp_path / "out.labels.json").write_text("mine")
    with pytest.raises(OutputError, match=r"out\.labels\.json exists already"):
        run(scan, tmp_path / "out.nii.gz")


def test_a_missing_folder_and_an_unknown_suffix_stop_before_the_work(tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz")
    with pytest.raises(OutputError, match="does not exist"):
        run(scan, tmp_path / "nowhere" / "out.seg.nrrd")
    with pytest.raises(OutputError, match=r"\.seg\.nrrd"):
        run(scan, tmp_path / "out.bmp")
    with pytest.raises(RequestError, match=r"\.png"):
        run(scan, tmp_path / "out.seg.nrrd", preview=tmp_path / "out.gif")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_stops_before_the_work(tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="no permission"):
        run(scan, locked / "out.seg.nrrd")


def test_the_scan_itself_is_never_an_output(tmp_path):
    scan = write_scan(tmp_path / "scan.nrrd")
    before = scan.read_bytes()
    with pytest.raises(RequestError, match="the scan at the same time"):
        run(scan, scan, overwrite=True)
    with pytest.raises(RequestError, match="another output"):
        run(scan, tmp_path / "out.seg.nrrd", report=tmp_path / "out.seg.nrrd")
    assert scan.read_bytes() == before


def test_a_broken_scan_leaves_nothing_behind(tmp_path):
    scan = tmp_path / "scan.nii.gz"
    scan.write_bytes(b"nothing of the kind")
    with pytest.raises(VolumeError):
        run(scan, tmp_path / "out.seg.nrrd")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.nii.gz"]


def test_cancel_leaves_nothing_behind(tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz")
    token = CancelToken()
    with pytest.raises(CancelledError):
        run(
            scan,
            tmp_path / "out.seg.nrrd",
            preview=tmp_path / "out.png",
            report=tmp_path / "out.json",
            cancel=token,
            options=replace(OPTIONS, batch_size=2),
            progress=lambda report: report.detail and token.cancel(),
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.nii.gz"]


def test_progress_covers_the_whole_way(tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz")
    reports = []
    run(scan, tmp_path / "out.seg.nrrd", progress=reports.append)
    fractions = [report.fraction for report in reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert [report.stage for report in reports][:2] == ["Reading the scan", "Loading the model"]
    assert "Writing the results" in [report.stage for report in reports]


def test_a_model_is_taken_by_id_and_by_file(tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz")
    bundle = write_bundle(tmp_path, "mine")
    store = empty_store(tmp_path, bundle)
    by_file = run(scan, tmp_path / "a.seg.nrrd", model=bundle, store=store)
    by_id = run(scan, tmp_path / "b.seg.nrrd", model="mine", store=store)
    assert by_file.model_id == by_id.model_id == "mine"
    np.testing.assert_array_equal(by_file.segmentation.array, by_id.segmentation.array)


def test_without_a_name_the_only_model_that_fits_is_taken_and_said(tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz")
    store = empty_store(tmp_path, write_bundle(tmp_path, "mine"), write_bundle(tmp_path, "for-ct", modality="CT"))
    result = run(scan, tmp_path / "out.seg.nrrd", model=None, store=store)
    assert result.model_id == "mine"
    assert result.warnings[0].startswith("The model mine (Model mine) was used")


def test_several_models_that_fit_are_a_question(tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz")
    store = empty_store(tmp_path, write_bundle(tmp_path, "one"), write_bundle(tmp_path, "two"))
    with pytest.raises(RequestError, match=r"Several models could segment scan: one .*two"):
        run(scan, tmp_path / "out.seg.nrrd", model=None, store=store)


def test_an_unknown_or_broken_model_is_said_before_the_scan_is_read(tmp_path):
    missing = tmp_path / "missing.nii.gz"
    with pytest.raises(ModelNotFoundError):
        run(missing, tmp_path / "out.seg.nrrd", model="nobody", store=empty_store(tmp_path))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError):
        run(missing, tmp_path / "out.seg.nrrd", model=broken, store=empty_store(tmp_path))


def test_a_report_is_not_written_over_the_names_of_a_nifti(tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz")
    with pytest.raises(RequestError, match="another output"):
        run(scan, tmp_path / "out.nii.gz", report=tmp_path / "out.labels.json")


def test_a_sheared_grid_for_a_nifti_stops_before_the_network(tmp_path):
    volume = bright_boxes()
    sheared = replace(volume.geometry, direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.3, 0.0, 0.0, 0.954))
    scan = write_scan(tmp_path / "scan.nrrd", replace(volume, geometry=sheared))
    stages = []
    with pytest.raises(OutputError, match="sheared"):
        run(scan, tmp_path / "out.nii.gz", progress=lambda report: stages.append(report.stage))
    assert stages == ["Reading the scan"]


def test_the_load_is_measured_from_the_arrival_of_the_request_until_the_network_starts(tmp_path, monkeypatch):
    from HSAMSegmentLib.runtime.threads import FreeCores
    from HSAMSegmentLib.workflows.segment import segment_scan

    order, open_volume = [], segment_scan.open_volume

    class NotedCores(FreeCores):
        def __init__(self):
            order.append("begin")
            super().__init__()

        def count(self):
            order.append("ask")
            return 1

    def noted_open(source):
        order.append("read")
        return open_volume(source)

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(segment_scan, "FreeCores", NotedCores)
    monkeypatch.setattr(segment_scan, "open_volume", noted_open)
    scan = write_scan(tmp_path / "scan.nrrd")
    run(scan, tmp_path / "out.seg.nrrd", options=SegmentOptions())
    assert order == ["begin", "read", "ask"]
