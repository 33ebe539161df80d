"""Lists of scans: patterns, CSV files, BIDS data sets, standard input."""

from __future__ import annotations

import io
import json

import pytest
from small_scans import write_dicom_series, write_scan

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.io.scan_lists import find_listed_scans, is_list


def names(scans):
    return [scan.name for scan in scans]


def test_a_pattern_finds_files_and_dicom_folders_named_below_its_fixed_part(tmp_path):
    write_scan(tmp_path / "data" / "p1" / "ct.nii.gz")
    write_dicom_series(tmp_path / "data" / "p2" / "ct")
    write_scan(tmp_path / "data" / "p3" / "mr.nii.gz")
    scans = find_listed_scans(f"{tmp_path}/data/*/ct*")
    assert names(scans) == ["p1/ct", "p2/ct"]
    assert not any(scan.problem for scan in scans)


def test_results_below_a_pattern_are_no_scans(tmp_path):
    write_scan(tmp_path / "a.nii.gz")
    write_scan(tmp_path / "out" / "a.nii.gz")
    assert names(find_listed_scans(f"{tmp_path}/**/*.nii.gz", ignored=tmp_path / "out")) == ["a"]


def test_a_pattern_without_scans_is_refused_and_a_file_with_brackets_is_no_pattern(tmp_path):
    with pytest.raises(RequestError, match="no scan in the pattern"):
        find_listed_scans(f"{tmp_path}/*.nii.gz")
    assert not is_list(str(write_scan(tmp_path / "scan[1].nii.gz")))
    assert is_list(f"{tmp_path}/scan[12].nii.gz")


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_table_gives_scans_and_the_names_of_their_results(tmp_path, separator):
    write_scan(tmp_path / "data" / "x.nii.gz")
    write_scan(tmp_path / "data" / "y.nrrd")
    rows = [("ID", "Path"), ("site1/anna", "data/x.nii.gz"), ("", "data/y.nrrd"), ("gone", "data/z.nrrd"), ("", "")]
    table = tmp_path / "scans.csv"
    table.write_text("\n".join(separator.join(row) for row in rows), encoding="utf-8-sig")
    scans = find_listed_scans(str(table))
    assert names(scans) == ["site1/anna", "data/y", "gone"]
    assert [bool(scan.problem) for scan in scans] == [False, False, True]
    assert "z.nrrd" in scans[2].problem


def test_a_table_names_a_series_of_a_folder(tmp_path):
    write_dicom_series(tmp_path / "p", number=1)
    write_dicom_series(tmp_path / "p", number=2)
    (tmp_path / "scans.csv").write_text("path,id,series\np,one,2\np,all,\n")
    scans = find_listed_scans(str(tmp_path / "scans.csv"))
    assert (scans[0].name, scans[0].series) == ("one", "2")
    assert names(scans)[1:] == ["all/p_1", "all/p_2"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("id,where\na,b\n", "no column 'path'"),
        ("path\n\n", "no scan in"),
        ("id,path\na,x.nii\nA,y.nii\n", "two rows"),
        ("id,path\n../a,x.nii\n", "cannot be the name"),
        ("id,path\n/etc/a,x.nii\n", "cannot be the name"),
    ],
)
def test_a_malformed_table_is_one_sentence(tmp_path, text, sentence):
    (tmp_path / "scans.csv").write_text(text)
    with pytest.raises(RequestError, match=sentence):
        find_listed_scans(str(tmp_path / "scans.csv"))


def test_standard_input_has_a_path_in_each_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_scan(tmp_path / "in" / "a.nii.gz")
    elsewhere = tmp_path.parent / "elsewhere.nii.gz"
    monkeypatch.setattr("sys.stdin", io.StringIO(f"in/a.nii.gz\n\nin/a.nii.gz\r\n{elsewhere}\n"))
    scans = find_listed_scans("-")
    assert names(scans) == ["in/a", str(tmp_path.parent / "elsewhere").lstrip("/")]
    assert [bool(scan.problem) for scan in scans] == [False, True]


def test_a_bids_data_set_gives_the_anatomy_of_all_sessions(tmp_path):
    (tmp_path / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.9.0"}))
    for name in (
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_T2w.nii",
        "sub-02/ses-1/func/sub-02_ses-1_bold.nii.gz",
        "derivatives/tool/sub-01/anat/sub-01_desc-brain_T1w.nii.gz",
    ):
        write_scan(tmp_path / name)
    scans = find_listed_scans(str(tmp_path))
    assert names(scans) == ["sub-01/anat/sub-01_T1w", "sub-02/ses-1/anat/sub-02_ses-1_T2w"]
