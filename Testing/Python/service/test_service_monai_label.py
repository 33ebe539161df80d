"""The service asked as MONAI Label's clients ask."""

from __future__ import annotations

import json
from email import message_from_bytes

import pytest
import SimpleITK as sitk
from service_fixtures import *  # noqa: F403 - fixtures
from service_program import TOKENS

from HSAMSegmentLib.service.kept_scans import KeptScans, UnknownScanError

BOUNDARY = "----------lImIt_of_THE_fIle_eW_$"
"""That of MONAI Label's own client."""


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


def form_of_the_client(params, file=None):
    """A form as MONAI Label's client writes it: no type for the fields, an empty line at the end."""
    lines = [f"--{BOUNDARY}", 'Content-Disposition: form-data; name="params"', "", json.dumps(params)]
    if file is not None:
        named = 'Content-Disposition: form-data; name="file"; filename="/tmp/x.nii.gz"'
        lines += [f"--{BOUNDARY}", named, "Content-Type: application/gzip", "", file]
    lines += [f"--{BOUNDARY}--", ""]
    body = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\r\n" for line in lines)
    return {"data": body, "headers": {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}}


def ask(service, token=TOKENS[0], **names):
    form = form_of_the_client({"result_extension": ".nrrd", "result_dtype": "uint8", "client_id": "me"})
    return service.request("POST", "/infer/tiny", token, params=names, **form)


def test_an_image_that_was_sent_before_is_segmented_as_often_as_its_owner_asks(service, nifti):
    form = form_of_the_client({"client_id": "me"}, nifti)
    answer = service.request("PUT", "/datastore/", params={"image": "CT one"}, **form)
    assert (answer.status_code, answer.json()) == (200, {"image": "CT one"})
    for _ in range(2):
        answer = ask(service, image="CT one")
        assert answer.status_code == 200, answer.text
        assert b'filename="segmentation.nrrd"' in answer.content
    assert ask(service, TOKENS[1], image="CT one").status_code == 404
    assert len(service.files_that_stay(kept=2)) == 2  # its folder, and the scan


def test_a_session_holds_a_scan_until_it_is_deleted(service, nifti):
    answer = service.request("PUT", "/session/", files=[("files", ("x.nii.gz", nifti))], data={"client_id": "me"})
    assert answer.status_code == 200, answer.text
    session = answer.json()["session_id"]
    assert service.request("GET", f"/session/{session}").status_code == 200
    assert service.request("GET", f"/session/{session}", TOKENS[1]).status_code == 404
    assert ask(service, image="anything", session_id=session).status_code == 200
    assert service.request("DELETE", f"/session/{session}").status_code == 200
    for method in ("GET", "DELETE"):
        assert service.request(method, f"/session/{session}").status_code == 404
    answer = ask(service, session_id=session)
    assert answer.status_code == 404
    assert "There is no such scan" in answer.json()["detail"]


def test_a_zip_of_dicom_files_can_be_kept_too(service, dicom_zip):
    answer = service.request("PUT", "/datastore/", params={"image": "MR"}, files={"file": ("x.zip", dicom_zip)})
    assert answer.status_code == 200, answer.text
    for _ in range(2):
        answer = service.request("POST", "/infer/tiny", params={"image": "MR", "output": "dicom_seg"})
        assert answer.status_code == 200, answer.text
        assert answer.content[128:132] == b"DICM"


def test_no_scan_is_one_sentence(service):
    answer = ask(service)
    assert answer.status_code == 400
    assert answer.json()["detail"] == "The form has no file; send the scan in a field named 'file'."
    answer = service.request("PUT", "/datastore/", params={"image": "a"}, **form_of_the_client({}))
    assert answer.status_code == 400


def test_a_client_logs_in_with_a_token_as_its_password(service):
    assert service.request("GET", "/auth/", "").json()["enabled"] is True
    login = {"username": "me", "password": TOKENS[1], "grant_type": "password"}
    answer = service.request("POST", "/auth/token", "", data=login)
    assert answer.json() == {"access_token": TOKENS[1], "token_type": "bearer"}
    headers = {"Authorization": f"bearer {TOKENS[1]}"}
    assert service.request("GET", "/auth/token/valid", headers=headers).status_code == 200
    assert service.request("GET", "/auth/token/valid", "").status_code == 401
    assert service.request("POST", "/auth/token", "", data={**login, "password": "guess"}).status_code == 401
    assert service.request("POST", "/auth/token", "", data={"password": "x" * 20_000}).status_code == 413


def test_kept_scans_make_room_and_expire(tmp_path):
    now = [0.0]
    kept = KeptScans(most_of_one=2, keep_seconds=10.0, clock=lambda: now[0])

    def add(owner, name):
        folder = tmp_path / f"{owner}-{name}-{now[0]}"
        folder.mkdir()
        (folder / "scan.nii").write_text(name)
        kept.add(owner, name, folder, folder / "scan.nii")

    for name in ("a", "b"):
        add("one", name)
        now[0] += 1
    kept.require("one", "a")
    add("two", "a")
    add("one", "c")
    with pytest.raises(UnknownScanError):  # it was not used for longest
        kept.require("one", "b")
    now[0] += 9
    (tmp_path / "job").mkdir()
    assert kept.copy("one", "a", tmp_path / "job").read_text() == "a"
    now[0] += 2
    kept.expire()
    assert [path.name for path in tmp_path.iterdir() if path.name != "job"] == ["one-a-0.0"]
    kept.remove("one", "a")
    assert (tmp_path / "job" / "scan.nii").read_text() == "a"
    assert len(list(tmp_path.iterdir())) == 1
