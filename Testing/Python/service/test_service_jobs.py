"""A real service on the loopback interface: from the upload to the one delivery of the result."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import pydicom
import pytest
import requests
from service_fixtures import *  # noqa: F403 - fixtures
from service_program import TOKENS
from small_scans import bright_boxes, write_scan

from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.labels.segmentation_files import read_segmentation


def events_of(service, job):
    """All events of a job as (name, data)."""
    answer = service.request("GET", f"/v1/jobs/{job}/events", stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = answer.text.strip().split("\n\n")
    lines = [block.split("\n") for block in blocks if not block.startswith(":")]
    return [(name[len("event: ") :], json.loads(data[len("data: ") :])) for name, data in lines]


def test_a_scan_becomes_labels_on_its_own_grid_and_nothing_is_left(service, nifti, tmp_path):
    job = service.submit(nifti)
    status = service.wait(job)
    assert status["state"] == "done", status
    assert status["fraction"] == 1.0
    report = status["report"]
    assert [label["name"] for label in report["labels"]] == ["bright left", "bright right", "gray"]
    assert str(service.folder) not in json.dumps(report)

    answer = service.request("GET", f"/v1/jobs/{job}/result")
    assert answer.status_code == 200
    assert answer.headers["X-Content-SHA256"] == hashlib.sha256(answer.content).hexdigest()
    (tmp_path / "organs.nii.gz").write_bytes(answer.content)
    labels = read_volume(tmp_path / "organs.nii.gz")
    assert labels.geometry.size == bright_boxes().geometry.size
    assert np.allclose(labels.geometry.spacing_mm, bright_boxes().geometry.spacing_mm)
    volume = sum(label["voxels"] for label in report["labels"])
    assert np.count_nonzero(labels.array) == volume > 0

    service.wait_until_gone(job)
    assert service.request("GET", f"/v1/jobs/{job}/result").status_code == 404
    assert service.files_that_stay() == []
    messages = [path for path in service.folder.rglob("*") if path.is_file()]
    assert messages
    assert not any(b"volume_ml" in path.read_bytes() for path in messages)


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_every_format_of_one_file_is_read_as_a_form_field_too(service, tmp_path, suffix):
    path = write_scan(tmp_path / f"scan{suffix}")
    with open(path, "rb") as stream:
        # The name lies: the content decides.
        files = {"note": (None, "a field of text"), "file": ("../../etc/passwd", stream)}
        answer = service.request("POST", "/v1/jobs", files=files, params={"format": "seg.nrrd"})
    assert answer.status_code == 202, answer.text
    job = answer.json()["id"]
    assert service.wait(job)["state"] == "done"
    content = service.request("GET", f"/v1/jobs/{job}/result").content
    (tmp_path / "organs.seg.nrrd").write_bytes(content)
    labels = read_segmentation(tmp_path / "organs.seg.nrrd")
    assert [label.name for label in labels.labels] == ["bright left", "bright right", "gray"]


def test_a_zip_of_dicom_files_is_one_scan(service, dicom_zip, tmp_path):
    job = service.submit(dicom_zip, organs="gray")
    status = service.wait(job)
    assert status["state"] == "done", status
    assert [label["name"] for label in status["report"]["labels"]] == ["gray"]
    assert status["report"]["input"]["size"] == [60, 50, 12]
    assert service.request("GET", f"/v1/jobs/{job}/result").status_code == 200
    assert service.files_that_stay() == []


def test_a_dicom_scan_becomes_a_dicom_segmentation_of_its_images(service, dicom_zip, nifti, tmp_path):
    pytest.importorskip("highdicom", reason="comes with the extra 'dicom'")
    job = service.submit(dicom_zip, format="dicom-seg")
    status = service.wait(job)
    assert status["state"] == "done", status
    answer = service.request("GET", f"/v1/jobs/{job}/result")
    assert answer.headers["content-type"] == "application/dicom"
    data = pydicom.dcmread(io.BytesIO(answer.content))
    assert data.SOPClassUID.name == "Segmentation Storage"
    assert data.StudyInstanceUID == "1.2.826.0.1.3680043.8.498.1"
    job = service.submit(nifti, format="dicom-seg")
    status = service.wait(job)
    assert status["state"] == "failed"
    assert "DICOM" in status["error"]
    assert service.files_that_stay() == []


def test_events_tell_the_progress_and_the_end(service, long_scan):
    job = service.submit(long_scan)
    events = events_of(service, job)
    assert [name for name, _ in events[:-1]] == ["progress"] * (len(events) - 1)
    fractions = [data["fraction"] for _, data in events]
    assert fractions == sorted(fractions)
    assert len({data["stage"] for _, data in events}) > 2
    assert events[-1][0] == "done"
    assert service.request("DELETE", f"/v1/jobs/{job}").status_code == 204


def test_a_running_job_and_a_waiting_one_can_be_taken_back(service, long_scan, nifti):
    running, waiting = service.submit(long_scan), service.submit(long_scan)
    assert service.wait(running, "running")["state"] == "running"
    assert service.status(waiting)["state"] == "waiting"
    assert service.request("DELETE", f"/v1/jobs/{waiting}").status_code == 204
    assert service.request("DELETE", f"/v1/jobs/{running}").status_code == 204
    after = service.submit(nifti)
    assert service.wait(after)["state"] == "done"
    assert service.request("GET", f"/v1/jobs/{running}").status_code == 404
    assert service.request("DELETE", f"/v1/jobs/{after}").status_code == 204
    assert service.files_that_stay() == []


def test_a_worker_that_is_killed_once_costs_time_only(service, long_scan):
    job = service.submit(long_scan)
    service.wait(job, "running")
    service.worker().kill()
    assert service.wait(job)["state"] == "done"
    assert service.request("DELETE", f"/v1/jobs/{job}").status_code == 204


@pytest.mark.slow
def test_a_job_that_kills_every_worker_fails_and_the_service_goes_on(service, long_scan, nifti):
    job = service.submit(long_scan)
    service.wait(job, "running")
    first = service.worker()
    first.kill()
    second = service.worker()
    while second == first or not second.is_running():
        second = service.worker()
    second.kill()
    status = service.wait(job)
    assert status["state"] == "failed"
    assert "ended unexpectedly, twice" in status["error"]
    after = service.submit(nifti)
    assert service.wait(after)["state"] == "done"
    assert service.request("DELETE", f"/v1/jobs/{after}").status_code == 204


def test_a_failed_job_says_why_without_telling_paths(service, nifti):
    job = service.submit(nifti, organs="tail")
    status = service.wait(job)
    assert status["state"] == "failed"
    assert "'tail'" in status["error"]
    job = service.submit(nifti[: len(nifti) // 2])
    status = service.wait(job)
    assert status["state"] == "failed"
    assert str(service.folder) not in status["error"]
    assert service.request("GET", f"/v1/jobs/{job}/result").status_code == 409
    assert service.files_that_stay() == []


def _result_when_free(service, job):
    """The result once more; a busy service notices a moment later that the delivery before has ended."""
    answer = service.request("GET", f"/v1/jobs/{job}/result")
    while answer.status_code == 409:
        answer = service.request("GET", f"/v1/jobs/{job}/result")
    return answer


def test_a_result_is_kept_if_the_client_asks_for_it(service, nifti):
    job = service.submit(nifti)
    service.wait(job)
    first = service.request("GET", f"/v1/jobs/{job}/result", params={"keep": "true"})
    assert first.content == _result_when_free(service, job).content
    service.wait_until_gone(job)


def test_a_delivery_that_is_cut_can_be_repeated(service, long_scan):
    job = service.submit(long_scan, format="nii")
    service.wait(job)
    answer = service.request("GET", f"/v1/jobs/{job}/result", stream=True)
    assert int(answer.headers["content-length"]) > 5e6  # more than the buffers of both sides hold
    answer.raw.read(1000)
    answer.close()
    answer = _result_when_free(service, job)
    assert answer.headers["X-Content-SHA256"] == hashlib.sha256(answer.content).hexdigest()


def test_nobody_without_the_token_reads_or_ends_a_job(service, nifti):
    job = service.submit(nifti)
    service.wait(job)
    for method, path in (("GET", ""), ("GET", "/result"), ("GET", "/events"), ("DELETE", "")):
        assert service.request(method, f"/v1/jobs/{job}{path}", TOKENS[1]).status_code == 404
        assert service.request(method, f"/v1/jobs/{job}{path}", "").status_code == 401
        assert service.request(method, f"/v1/jobs/{job}{path}", TOKENS[0] + "x").status_code == 401
    assert service.request("GET", f"/v1/jobs/{job}/result").status_code == 200


def test_models_are_named_by_id_only(service, nifti, models):
    assert "tiny" in [model["id"] for model in service.request("GET", "/v1/models").json()]
    path = str(next(models.glob("*.safetensors")))
    for name in (path, "/etc/passwd", "nothing"):
        answer = service.request("POST", "/v1/jobs", data=nifti, params={"model": name})
        assert answer.status_code == 404
        assert "This service has no model" in answer.json()["detail"]


def test_a_wrong_format_is_refused_with_the_right_ones(service, nifti):
    answer = service.request("POST", "/v1/jobs", data=nifti, params={"format": "docx"})
    assert answer.status_code == 400
    assert "nii.gz" in answer.json()["detail"]


def test_the_description_needs_no_other_server(service):
    page = requests.get(service.address + "/docs", timeout=10).text
    assert "http://" not in page
    assert "https://" not in page
    description = requests.get(service.address + "/openapi.json", timeout=10).json()
    assert {"/v1/jobs", "/v1/jobs/{job_id}/result", "/infer/{model}"} <= set(description["paths"])
