"""The command line, the Python API, a thread and a worker process write the same bytes for the same scan and model."""

from __future__ import annotations

import json

import pytest
from job_driver import finish

import HSAMSegmentLib as hsam
from HSAMSegmentLib.images.volume import VolumeInput
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.runtime.owned_folders import Workspace
from HSAMSegmentLib.worker.process_runner import ProcessRunner
from HSAMSegmentLib.worker.runners import ThreadRunner
from HSAMSegmentLib.workflows.events import Result
from HSAMSegmentLib.workflows.segment.segment_request import OutputFiles, SegmentRequest

pytest_plugins = ("program_fixtures",)

OF_THE_RUN = ("created", "timings_s", "output", "record")
"""What a report says of the run rather than of the result."""


def by_command_line(program, scan, model, folder):
    files = ("-o", folder / "organs.nii.gz", "--report", folder / "report.json", "--preview", folder / "preview.png")
    done = program("segment", scan, "--model", model, "--device", "cpu", *files)
    assert done.returncode == 0, done.stderr


def by_python(scan, model, folder):
    hsam.segment(scan, model, device="cpu").save(folder / "organs.nii.gz")


def by_runner(runner, scan, model, folder):
    (folder / "job").mkdir()
    request = SegmentRequest(
        VolumeInput(path=str(scan)),
        model=str(model),
        device="cpu",
        options=SegmentOptions(),
        files=OutputFiles(folder / "organs.nii.gz", folder / "preview.png", folder / "report.json"),
        output_folder=str(folder / "job"),
    )
    runner.start(request)
    events = finish(runner, seconds=120.0)
    assert isinstance(events[-1], Result), events[-1]


@pytest.fixture
def written(tmp_path, program, scan, model_file, one_thread):
    """A folder for each way, with what it wrote; the way as the key."""
    folders = {way: tmp_path / way for way in ("command line", "python", "thread", "process")}
    for folder in folders.values():
        folder.mkdir()
    by_command_line(program, scan, model_file, folders["command line"])
    by_python(scan, model_file, folders["python"])
    (tmp_path / "jobs").mkdir()
    workspace = Workspace(tmp_path / "jobs")
    for way, runner in (("thread", ThreadRunner()), ("process", ProcessRunner(workspace))):
        try:
            by_runner(runner, scan, model_file, folders[way])
        finally:
            runner.close()
    workspace.close()
    return folders


def reported(folder):
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {key: value for key, value in report.items() if key not in OF_THE_RUN}


def test_all_ways_write_the_same_labels_names_picture_and_report(written):
    first = written["command line"]
    for folder in written.values():
        for name in ("organs.nii.gz", "organs.labels.json"):
            assert (folder / name).read_bytes() == (first / name).read_bytes(), f"{name} of {folder.name}"
    for way in ("thread", "process"):
        assert (written[way] / "preview.png").read_bytes() == (first / "preview.png").read_bytes()
        assert reported(written[way]) == reported(first)
