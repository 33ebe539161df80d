"""A folder of scans."""

from __future__ import annotations

import csv
import os
from dataclasses import replace

import pytest
from segment_requests import segment_all_to
from small_models import write_bundle
from small_scans import bright_boxes, write_dicom_series, write_scan

from HSAMSegmentLib.errors import CancelledError, CheckpointError, OutputError, RequestError
from HSAMSegmentLib.inference.options import PostprocessOptions, SegmentOptions
from HSAMSegmentLib.io.scan_folder import find_scans
from HSAMSegmentLib.labels.segmentation_files import read_segmentation, write_segmentation
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.weights.catalog import Catalog
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.workflows.segment import result_files
from HSAMSegmentLib.workflows.segment_folder.scan_outcome import (
    CANCELLED,
    DONE,
    DONE_BEFORE,
    FAILED,
    NOT_STARTED,
)

OPTIONS = SegmentOptions(threads=1)


@pytest.fixture
def folder(tmp_path):
    """Three scans: a file, a DICOM series in a folder, and a broken file."""
    write_scan(tmp_path / "in" / "a.nii.gz")
    write_dicom_series(tmp_path / "in" / "patient" / "series")
    (tmp_path / "in" / "z_broken.nii.gz").write_bytes(b"not a scan")
    return tmp_path / "in"


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "models", "tiny")


def run(source, output, bundle, **changes):
    store = Store(output.parent / "store", catalog=Catalog(()), builtin=output.parent / "none")
    return segment_all_to(
        source, output, **{"model": bundle, "store": store, "device": "cpu", "options": OPTIONS, **changes}
    )


def summary(output) -> dict[str, dict[str, str]]:
    with open(output / "summary.csv", newline="", encoding="utf-8") as stream:
        return {row["scan"]: row for row in csv.DictReader(stream)}


def statuses(output) -> dict[str, str]:
    return {name: row["status"] for name, row in summary(output).items()}


def test_every_scan_is_done_and_a_bad_one_stops_nothing(folder, bundle, tmp_path):
    output = tmp_path / "out"
    result = run(folder, output, bundle)
    assert statuses(output) == {"a": DONE, "patient/series": DONE, "z_broken": FAILED}
    assert (result.count(DONE), result.count(FAILED)) == (2, 1)
    rows = summary(output)
    assert rows["a"]["output"] == "a.seg.nrrd"
    assert rows["a"]["model"] == "tiny"
    assert "z_broken" in rows["z_broken"]["message"]
    for name in ("a", "patient/series"):
        assert read_segmentation(output / f"{name}.seg.nrrd").array.shape == (12, 50, 60)
        assert (output / f"{name}.report.json").is_file()


def test_what_is_finished_is_not_done_again(folder, bundle, tmp_path):
    output = tmp_path / "out"
    run(folder, output, bundle)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.seg.nrrd")}
    result = run(folder, output, bundle)
    assert statuses(output) == {"a": DONE_BEFORE, "patient/series": DONE_BEFORE, "z_broken": FAILED}
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.seg.nrrd")} == before
    assert result.scans[0].found
    assert result.scans[0].model == "tiny"


def test_a_copy_of_a_scan_with_another_date_is_the_same_scan(folder, bundle, tmp_path):
    output = tmp_path / "out"
    run(folder, output, bundle)
    os.utime(folder / "a.nii.gz", (1, 1))
    run(folder, output, bundle)
    assert statuses(output)["a"] == DONE_BEFORE


def test_a_changed_scan_is_done_again(folder, bundle, tmp_path):
    output = tmp_path / "out"
    run(folder, output, bundle)
    changed = bright_boxes()
    changed.array[5] += 3
    write_scan(folder / "a.nii.gz", changed)
    run(folder, output, bundle)
    assert statuses(output) == {"a": DONE, "patient/series": DONE_BEFORE, "z_broken": FAILED}


@pytest.mark.parametrize(
    "changes",
    [
        {"options": replace(OPTIONS, organs=("gray",))},
        {"options": replace(OPTIONS, postprocess=PostprocessOptions(fill_holes=False))},
    ],
)
def test_other_options_do_it_again(folder, bundle, tmp_path, changes):
    output = tmp_path / "out"
    run(folder, output, bundle)
    run(folder, output, bundle, **changes)
    assert statuses(output)["a"] == DONE


def test_options_without_effect_on_the_labels_do_not(folder, bundle, tmp_path):
    output = tmp_path / "out"
    run(folder, output, bundle)
    run(folder, output, bundle, options=replace(OPTIONS, batch_size=3))
    assert statuses(output)["a"] == DONE_BEFORE


def test_another_model_does_it_again(folder, bundle, tmp_path):
    output = tmp_path / "out"
    run(folder, output, bundle)
    run(folder, output, write_bundle(tmp_path / "models", "other"))
    assert summary(output)["a"]["model"] == "other"


def test_a_segmentation_corrected_by_hand_is_never_replaced_unasked(folder, bundle, tmp_path):
    output = tmp_path / "out"
    run(folder, output, bundle)
    corrected = read_segmentation(output / "a.seg.nrrd")
    corrected.array[:] = 0
    write_segmentation(corrected, output / "a.seg.nrrd", overwrite=True)
    run(folder, output, bundle)
    assert statuses(output)["a"] == DONE_BEFORE
    run(folder, output, bundle, options=replace(OPTIONS, organs=("gray",)))
    assert statuses(output)["a"] == FAILED
    assert "changed since it was written" in summary(output)["a"]["message"]
    assert not read_segmentation(output / "a.seg.nrrd").array.any()
    run(folder, output, bundle, overwrite=True)
    assert read_segmentation(output / "a.seg.nrrd").array.any()


def test_a_file_of_somebody_else_is_left_alone(folder, bundle, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "a.seg.nrrd").write_text("mine")
    run(folder, output, bundle)
    assert statuses(output)["a"] == FAILED
    assert (output / "a.seg.nrrd").read_text() == "mine"
    assert "not from an earlier run" in summary(output)["a"]["message"]


def test_cancel_keeps_what_is_finished_and_the_next_run_goes_on(folder, bundle, tmp_path):
    output = tmp_path / "out"
    token = CancelToken()

    def stop_in_the_second(report):
        if report.detail.startswith("scan 2 of 3") and "slice" in report.detail:
            token.cancel()

    with pytest.raises(CancelledError):
        run(folder, output, bundle, cancel=token, progress=stop_in_the_second)
    assert statuses(output) == {"a": DONE, "patient/series": CANCELLED, "z_broken": NOT_STARTED}
    assert [path.name for path in output.rglob("*.seg.nrrd")] == ["a.seg.nrrd"]
    run(folder, output, bundle)
    assert statuses(output) == {"a": DONE_BEFORE, "patient/series": DONE, "z_broken": FAILED}


def test_previews_are_written_on_demand_also_for_scans_done_before(folder, bundle, tmp_path):
    output = tmp_path / "out"
    run(folder, output, bundle)
    run(folder, output, bundle, preview=True)
    assert (output / "a.preview.png").is_file()
    run(folder, output, bundle, preview=True)
    assert statuses(output)["a"] == DONE_BEFORE


def test_progress_names_the_scan_and_rises_to_one(folder, bundle, tmp_path):
    reports = []
    run(folder, tmp_path / "out", bundle, progress=reports.append)
    fractions = [report.fraction for report in reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert any("scan 2 of 3, patient/series" in report.detail for report in reports)


def test_an_unusable_model_or_output_folder_stops_everything_at_once(folder, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"x" * 64)
    with pytest.raises(CheckpointError):
        run(folder, tmp_path / "out", broken)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        run(folder, tmp_path / "file", write_bundle(tmp_path / "models"))


def test_an_empty_folder_and_an_unknown_format_are_refused(folder, bundle, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="no scan"):
        run(tmp_path / "empty", tmp_path / "out", bundle)
    with pytest.raises(RequestError, match=r"There is no format '\.bmp'; choose one of seg"):
        run(folder, tmp_path / "out", bundle, suffix=".bmp")


def test_scans_are_found_at_any_depth_with_unique_names(tmp_path):
    for name in ("x/scan.nii.gz", "x/scan.nrrd", "y/scan.mha", "y/result.seg.nrrd", "out/old.nii.gz"):
        write_scan(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no scan")
    scans = find_scans(tmp_path, ignored=tmp_path / "out")
    assert [scan.name for scan in scans if not scan.skipped] == ["x/scan_nii_gz", "x/scan_nrrd", "y/scan"]
    assert [scan.name for scan in scans if scan.skipped] == ["y/result"]


def test_every_series_of_a_dicom_folder_is_a_scan(tmp_path):
    write_dicom_series(tmp_path / "patient", number=1)
    write_dicom_series(tmp_path / "patient", number=2, description="T1")
    write_dicom_series(tmp_path / "patient", number=3, description="localizer")
    scans = find_scans(tmp_path)
    assert [scan.name for scan in scans] == ["patient_1", "patient_2"]
    assert len({scan.series for scan in scans}) == 2


def test_a_series_in_two_folders_is_refused_with_both(tmp_path):
    write_dicom_series(tmp_path / "A")
    (tmp_path / "B").mkdir()
    for file in sorted((tmp_path / "A").iterdir())[:6]:
        file.rename(tmp_path / "B" / file.name)
    scans = find_scans(tmp_path)
    assert all(str(tmp_path / name) in scan.problem for scan in scans for name in ("A", "B"))


def test_results_inside_of_a_dicom_folder_are_no_part_of_the_scan(bundle, tmp_path):
    source = write_dicom_series(tmp_path / "scan")
    run(source, source / "out", bundle)
    run(source, source / "out", bundle)
    assert list(statuses(source / "out").values()) == [DONE_BEFORE]


def test_links_to_folders_are_not_followed(folder):
    (folder / "patient" / "loop").symlink_to(folder, target_is_directory=True)
    scans = find_scans(folder)
    assert [scan.name for scan in scans] == ["a", "patient/series", "z_broken", "patient/loop"]
    assert "link to a folder" in scans[-1].skipped


def test_an_interruption_while_writing_is_made_good_by_the_next_run(folder, bundle, tmp_path, monkeypatch):
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(result_files, "write_report", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(folder, output, bundle)
    assert not list(output.rglob("*.seg.nrrd"))
    run(folder, output, bundle)
    assert statuses(output)["a"] == DONE


def test_a_missing_preview_does_not_replace_a_correction_and_is_named(folder, bundle, tmp_path):
    output = tmp_path / "out"
    run(folder, output, bundle)
    corrected = read_segmentation(output / "a.seg.nrrd")
    corrected.array[:] = 0
    write_segmentation(corrected, output / "a.seg.nrrd", overwrite=True)
    run(folder, output, bundle, preview=True)
    assert "its preview is missing" in summary(output)["a"]["message"]
    assert not read_segmentation(output / "a.seg.nrrd").array.any()


def test_who_asks_is_told_of_each_scan_with_the_volumes_of_its_organs(folder, bundle, tmp_path):
    everything = []
    for _ in range(2):
        run(folder, tmp_path / "out", bundle, on_scan=lambda *arguments: everything.append(arguments))
    assert [outcome.status for _, _, outcome in everything[:3]] == [NOT_STARTED] * 3
    told = everything[3:6] + everything[9:]
    assert [(index, count) for index, count, _ in told] == [(0, 3), (1, 3), (2, 3)] * 2
    first, again = told[0][2], told[3][2]
    assert (first.status, again.status) == (DONE, DONE_BEFORE)
    assert [name for name, volume in first.volumes_ml if volume > 0] == list(first.found)
    assert [name for name, _ in again.volumes_ml] == [name for name, _ in first.volumes_ml]
    assert [volume for _, volume in again.volumes_ml] == pytest.approx([volume for _, volume in first.volumes_ml])
    assert told[2][2].status == FAILED
