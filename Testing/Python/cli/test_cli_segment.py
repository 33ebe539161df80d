"""`hsam-segment segment` and `hsam-segment finetune`: results, refusals, folders of scans, Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from program_environment import environment, one_line
from small_scans import write_dicom_series

from HSAMSegmentLib.labels.segmentation_files import read_segmentation

pytest_plugins = ("program_fixtures",)


@pytest.mark.slow
def test_segment_writes_segmentation_picture_and_report_and_prints_the_organs(program, scan, model_file):
    outputs = ("-o", "out.seg.nrrd", "--preview", "out.png", "--report", "out.json")
    done = program("segment", scan, *outputs, "--model", model_file, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == ["organ", "mL", "confidence"]
    assert "bright left" in done.stdout
    report = json.loads((program.folder / "out.json").read_text())
    assert [item["name"] for item in report["labels"]] == ["bright left", "bright right", "gray"]
    assert (program.folder / "out.png").read_bytes().startswith(b"\x89PNG")
    again = program("segment", scan, *outputs, "--model", model_file)
    assert again.returncode == 8
    assert "exists" in one_line(again)
    compared = program("evaluate", "out.seg.nrrd", "out.seg.nrrd")
    assert compared.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["--organs", "liver"], 2, "bright left, bright right, gray"),
        (["--device", "gpu"], 7, "gpu"),
        (["--roi", "0,10,0,10,0,99"], 2, "region"),
        (["--model", "nothing_like_it"], 5, "nothing_like_it"),
        (["-o", "out.bmp"], 8, "out.bmp"),
        (["-o", "no_folder/out.nii.gz"], 8, "no_folder"),
    ],
)
def test_segment_refuses_what_makes_no_sense_and_leaves_nothing(program, scan, model_file, arguments, code, part):
    done = program("segment", scan, "-o", "out.nii.gz", "--model", model_file, "--quiet", *arguments)
    assert done.returncode == code
    assert part in one_line(done)
    assert list(program.folder.iterdir()) == []


@pytest.mark.slow
def test_a_scan_that_is_none_has_its_exit_code(program, model_file):
    (program.folder / "scan.nii.gz").write_text("this is not an image")
    done = program("segment", "scan.nii.gz", "-o", "out.nii.gz", "--model", model_file, "--quiet")
    assert done.returncode == 3
    assert "scan.nii.gz" in one_line(done)


@pytest.mark.slow
def test_debug_shows_the_traceback_before_the_line(program, model_file):
    (program.folder / "scan.nii.gz").write_text("this is not an image")
    done = program("segment", "scan.nii.gz", "-o", "out.nii.gz", "--model", model_file, "--debug")
    assert done.returncode == 3
    assert "Traceback" in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("hsam-segment: ")


@pytest.mark.slow
def test_the_ending_of_a_name_is_the_format_and_a_nifti_scan_is_none_for_dicom(program, scan, model_file):
    pytest.importorskip("highdicom", reason="highdicom writes DICOM Segmentations: pip install highdicom")
    write_dicom_series(program.folder / "series")
    done = program("segment", "series", "-o", "out.dcm", "--model", model_file, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert {label.name for label in read_segmentation(program.folder / "out.dcm").labels} >= {"gray"}
    done = program("segment", scan, "-o", "other.dcm", "--model", model_file, "--format", "rtstruct", "--quiet")
    assert done.returncode == 8
    assert "the scan is not a DICOM series" in one_line(done)
    done = program("segment", scan, "-o", "out.stl", "--model", model_file, "--format", "mesh")
    assert done.returncode == 2
    assert "choose one of seg.nrrd" in one_line(done)


@pytest.mark.slow
def test_a_folder_has_statistics_and_a_page(program, scan, model_file):
    scans = program.folder / "scans"
    scans.mkdir()
    shutil.copy(scan, scans / "one.nii.gz")
    arguments = ("segment", "scans", "-o", "results", "--model", model_file, "--statistics", "all.csv")
    for _ in range(2):
        done = program(*arguments)
        assert done.returncode == 0, done.stderr
    lines = (program.folder / "all.csv").read_text().splitlines()
    assert lines[0].startswith("scan,structure,code,side,voxels,volume_ml,surface_cm2,mean")
    assert [line.split(",")[:2] for line in lines[1:]] == [["one", n] for n in ("bright left", "bright right", "gray")]
    done = program("report", "results", "-o", "report.html")
    assert done.returncode == 0, done.stderr
    assert "shows 1 scans" in done.stderr
    assert "<img" in (program.folder / "report.html").read_text(encoding="utf-8")
    again = program("report", "results", "-o", "report.html")
    assert again.returncode == 8
    assert "exists already" in one_line(again)
    assert program("report", "nowhere", "-o", "other.html").returncode == 2


def test_arguments_for_one_scan_and_for_a_folder_are_not_mixed(program):
    (program.folder / "scans").mkdir()
    (program.folder / "scan.nii.gz").write_text("")
    done = program("segment", "scans", "-o", "results", "--preview", "p.png")
    assert done.returncode == 2
    assert "--previews" in one_line(done)
    done = program("segment", "scan.nii.gz", "-o", "out.nii.gz", "--previews")
    assert done.returncode == 2
    assert "--previews" in one_line(done)


@pytest.mark.slow
def test_a_folder_of_scans_is_finished_around_a_bad_one_and_not_done_twice(program, scan, model_file):
    scans = program.folder / "scans"
    scans.mkdir()
    shutil.copy(scan, scans / "good.nii.gz")
    (scans / "bad.nii.gz").write_text("this is not an image")
    arguments = ("segment", "scans", "-o", "results", "--model", model_file, "--previews", "--format", ".nii.gz")
    done = program(*arguments)
    assert done.returncode == 3, done.stderr
    written = sorted(path.name for path in (program.folder / "results").iterdir())
    results = ["good.labels.json", "good.nii.gz", "good.preview.png", "good.report.json"]
    assert written == [*results, "manifest.jsonl", "summary.csv"]
    assert "1 done, 0 done before, 1 failed" in done.stderr
    again = program(*arguments)
    assert again.returncode == 3
    assert "0 done, 1 done before, 1 failed" in again.stderr
    assert "bad" in (program.folder / "results" / "summary.csv").read_text()


@pytest.mark.slow
def test_a_model_is_finetuned_and_then_segments(program, scan, model_file):
    labels = scan.parent / "phantom_labels.nii.gz"
    case = ("--case", scan, labels)
    names = ("--names", "1=liver,2=right kidney,3=left kidney,4=spleen")
    options = ("--start-from", model_file, "--epochs", 1, "--report", "finetuned.json", "--plot", "finetuned.png")
    done = program("finetune", *case, "-o", "finetuned.safetensors", *names, *options)
    assert done.returncode == 0, done.stderr
    assert "finetuned.safetensors" in done.stdout
    assert json.loads((program.folder / "finetuned.json").read_text())["path"].endswith("finetuned.safetensors")
    assert (program.folder / "finetuned.png").read_bytes().startswith(b"\x89PNG")
    again = program("finetune", *case, "-o", "finetuned.safetensors", *names, *options)
    assert again.returncode == 8
    used = program("segment", scan, "-o", "out.nii.gz", "--model", "finetuned.safetensors")
    assert used.returncode == 0, used.stderr
    assert [line.split("  ")[0] for line in used.stdout.splitlines()[1:]] == [
        "liver",
        "right kidney",
        "left kidney",
        "spleen",
    ]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no way to send Ctrl-C to one process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_ctrl_c_leaves_no_file_and_exits_with_130(program, home, model_file, number):
    import SimpleITK as sitk

    large = np.random.default_rng(0).integers(0, 1000, (400, 128, 128)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(large), str(program.folder / "scan.mha"))
    command = [sys.executable, "-m", "HSAMSegmentLib", "segment", "scan.mha", "-o", "out.seg.nrrd"]
    command += ["--preview", "out.png", "--report", "out.json", "--model", str(model_file), "--batch-size", "1"]
    with subprocess.Popen(
        command, cwd=program.folder, env=environment(home), stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if line.startswith("Segmenting"):
                break
        process.send_signal(number)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert rest.strip().splitlines()[-1] == "hsam-segment: Cancelled."
    assert [path.name for path in program.folder.iterdir()] == ["scan.mha"]
