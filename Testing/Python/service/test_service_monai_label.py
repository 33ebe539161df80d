"""The service asked as MONAI Label's clients ask."""

from __future__ import annotations

import json
from email import message_from_bytes

import pytest
import SimpleITK as sitk
from service_fixtures import *  # noqa: F403 - fixtures


def infer(service, nifti, output=None, params=None):
    files = {"params": (None, json.dumps(params or {})), "file": ("scan.nii.gz", nifti)}
    query = {"image": "scan", **({"output": output} if output else {})}
    return service.request("POST", "/infer/tiny", files=files, params=query)


def test_info_lists_the_models_with_their_labels(service):
    info = service.request("GET", "/info/").json()
    assert info["models"]["tiny"]["type"] == "segmentation"
    assert info["models"]["tiny"]["labels"] == {"bright left": 1, "bright right": 2, "gray": 5}
    assert "gray" in info["labels"]


def test_infer_answers_with_names_and_labels_in_one_form(service, nifti, tmp_path):
    answer = infer(service, nifti, params={"result_extension": ".nrrd", "client_id": "reader"})
    assert answer.status_code == 200, answer.text
    message = message_from_bytes(
        b"Content-Type: " + answer.headers["content-type"].encode() + b"\r\n\r\n" + answer.content
    )
    parts = {part.get_param("name", header="content-disposition"): part for part in message.get_payload()}
    params = json.loads(parts["params"].get_payload(decode=True))
    assert params["label_names"] == {"bright left": 1, "bright right": 2, "gray": 5}
    name = parts["image"].get_filename()
    assert name.endswith(".nrrd")
    (tmp_path / name).write_bytes(parts["image"].get_payload(decode=True))
    assert sitk.ReadImage(str(tmp_path / name)).GetSize() == (60, 50, 12)
    assert service.files_that_stay() == []


@pytest.mark.parametrize(("output", "kind"), [("image", "application/gzip"), ("json", "application/json")])
def test_infer_answers_with_one_of_them(service, nifti, output, kind):
    answer = infer(service, nifti, output, {"organs": ["gray"]})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == kind
    assert service.files_that_stay() == []


@pytest.mark.parametrize(
    ("output", "params", "code"),
    [("video", {}, 400), ("image", [], 400), ("image", {"organs": "gray"}, 400), ("json", {"organs": ["tail"]}, 422)],
)
def test_what_makes_no_sense_is_refused(service, nifti, output, params, code):
    answer = infer(service, nifti, output, params or None if params == {} else params)
    if params == []:
        files = {"params": (None, "[1"), "file": ("scan.nii.gz", nifti)}
        answer = service.request("POST", "/infer/tiny", files=files, params={"output": output})
    assert answer.status_code == code
    assert answer.json()["detail"].endswith((".", ")"))
    assert service.files_that_stay() == []
