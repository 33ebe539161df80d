"""Uploads that are broken, hostile, slow or too large: each is answered with a sentence, and nothing is left."""

from __future__ import annotations

import io
import socket
import struct
import time
import zipfile

import numpy as np
import pytest
from service_fixtures import *  # noqa: F403 - fixtures
from service_program import TOKENS, running_service, zip_of
from small_scans import write_scan

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import Volume


@pytest.fixture(scope="module")
def service(tmp_path_factory, models):
    """A service of small limits."""
    limits = ("--max-upload-mb", "2", "--max-unpacked-mb", "4", "--silence-seconds", "1.5", "--max-waiting", "3")
    with running_service(tmp_path_factory.mktemp("service"), models, "--model", "tiny", *limits) as running:
        yield running


def refused(service, content, **options):
    answer = service.request("POST", "/v1/jobs", data=content, **options)
    assert service.files_that_stay() == []
    return answer.status_code, answer.json()["detail"]


def still_works(service, nifti):
    job = service.submit(nifti)
    assert service.wait(job)["state"] == "done"
    assert service.request("GET", f"/v1/jobs/{job}/result").status_code == 200


def raw_connection(service):
    host, port = service.address[len("http://") :].split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def head(length, path="/v1/jobs", token=TOKENS[0]):
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}", f"Content-Length: {length}")
    return "\r\n".join((*lines, "", "")).encode()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 1000, b"%PDF-1.4", b"<html></html>", b"{}"])
def test_what_is_no_scan_is_refused_at_once(service, content):
    code, sentence = refused(service, content)
    assert code == 422
    assert "Send a scan as one file" in sentence


def test_an_upload_over_the_limit_is_refused_whether_it_says_its_size_or_not(service, nifti):
    large = b"\x1f\x8b" + bytes(3_000_000)
    code, sentence = refused(service, large)
    assert code == 413
    assert "2.0 MB" in sentence

    def unknown_size():
        for start in range(0, len(large), 65536):
            yield large[start : start + 65536]

    assert refused(service, unknown_size())[0] == 413
    assert refused(service, None, files={"file": ("scan.nii.gz", large)})[0] == 413
    still_works(service, nifti)


def test_a_zip_bomb_is_refused(service, nifti):
    bomb = zip_of({"scan.dcm": b"\0" * 128 + b"DICM" + bytes(40_000_000)})
    assert len(bomb) < 50_000
    code, sentence = refused(service, bomb)
    assert code == 422
    assert "unpacks to more than 4.0 MB" in sentence
    still_works(service, nifti)


def test_a_zip_bomb_that_lies_about_its_size_is_refused(service):
    bomb = bytearray(zip_of({"scan.dcm": b"\0" * 128 + b"DICM" + bytes(50_000_000)}))
    directory = bomb.rindex(b"PK\x01\x02")
    bomb[directory + 24 : directory + 28] = struct.pack("<I", 1000)
    code, sentence = refused(service, bytes(bomb))
    assert code == 422
    assert "ZIP archive" in sentence


def test_a_zip_in_a_zip_and_overlapping_files_come_to_nothing(service):
    inner = zip_of({"scan.dcm": b"\0" * 128 + b"DICM"})
    assert refused(service, zip_of({"inner.zip": inner}))[1].startswith("The ZIP archive holds no scan.")
    # Many entries of the directory that lead to the same data.
    plain = zip_of({"a.dcm": b"\0" * 128 + b"DICM" + bytes(1_000_000)})
    start, end = plain.index(b"PK\x01\x02"), plain.index(b"PK\x05\x06")
    entry = plain[start:end]
    entries = b"".join(entry.replace(b"a.dcm", bytes([97 + index]) + b".dcm") for index in range(26))
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 26, 26, len(entries), start, 0)
    assert refused(service, plain[:start] + entries + tail)[0] == 422


def test_paths_in_a_zip_lead_nowhere(service, dicom_zip, tmp_path):
    target = tmp_path / "escaped.dcm"
    memory = io.BytesIO(dicom_zip)
    with zipfile.ZipFile(memory, "a") as archive:
        archive.writestr(str(target), b"\0" * 128 + b"DICM")
        archive.writestr("../../../../escaped.dcm", b"\0" * 128 + b"DICM")
        link = zipfile.ZipInfo("link.dcm")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    job = service.submit(memory.getvalue())
    assert service.wait(job)["state"] in ("done", "failed")
    assert not target.exists()
    inside = [path for path in service.folder.rglob("*") if path.name.startswith("escaped")]
    assert inside == []
    assert service.request("DELETE", f"/v1/jobs/{job}").status_code == 204


@pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
def test_a_damaged_zip_is_refused(service, dicom_zip, part):
    code, sentence = refused(service, dicom_zip[: int(part * len(dicom_zip))])
    assert code == 422
    assert "damaged" in sentence


def test_a_locked_zip_is_refused(service, dicom_zip):
    locked = bytearray(dicom_zip)
    position = 0
    while (position := locked.find(b"PK\x01\x02", position)) >= 0:
        locked[position + 8] |= 1
        position += 4
    assert "password" in refused(service, bytes(locked))[1]


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b"no form at all"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc'),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n'),
        ("multipart/form-data; boundary=" + "y" * 5000, b"--y"),
    ],
)
def test_a_malformed_form_is_refused(service, header, body):
    code, sentence = refused(service, body, headers={"Content-Type": header})
    assert code == 400
    assert "form" in sentence


def test_texts_of_a_form_are_kept_short(service):
    code, sentence = refused(service, None, files={"note": (None, "x" * 1_000_000), "file": ("scan", b"NRRD")})
    assert code == 400
    assert "fields of the form" in sentence


def test_an_upload_that_is_cut_leaves_nothing(service, nifti):
    for part in (0, 10, len(nifti) // 2):
        with raw_connection(service) as connection:
            connection.sendall(head(len(nifti)) + nifti[:part])
        # Each in turn: a busy machine notices a cut connection late, and until then it holds one of three places.
        still_works(service, nifti)
    assert service.files_that_stay() == []


def test_an_upload_that_pauses_is_ended(service, nifti):
    with raw_connection(service) as connection:
        connection.sendall(head(len(nifti)) + nifti[:10])
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408")
    assert service.files_that_stay() == []


def test_a_connection_that_asks_for_nothing_is_closed(service):
    with raw_connection(service) as connection:
        connection.sendall(b"GET /health HT")
        assert connection.recv(4096) == b""


def test_slow_clients_do_not_keep_others_from_their_turn(service, nifti):
    # They hold all places but one, and send a byte now and then.
    slow = [raw_connection(service) for _ in range(2)]
    try:
        for connection in slow:
            connection.sendall(head(len(nifti)) + nifti[:100])
        still_works(service, nifti)
        extra = raw_connection(service)
        slow.append(extra)
        extra.sendall(head(len(nifti)) + nifti[:100])
        time.sleep(0.3)
        answer = service.request("POST", "/v1/jobs", data=nifti)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
    finally:
        for connection in slow:
            connection.close()
    assert service.files_that_stay() == []
    still_works(service, nifti)


def test_a_client_that_takes_nothing_of_its_result_is_left(service, tmp_path):
    geometry = Geometry(size=(64, 64, 1500), spacing_mm=(4.0, 4.0, 1.0))
    content = write_scan(tmp_path / "scan.nii.gz", Volume(np.zeros(geometry.shape, np.int16), geometry)).read_bytes()
    job = service.submit(content, format="nii")
    assert service.wait(job)["state"] == "done"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = service.address[len("http://") :].split(":")
        connection.connect((host, int(port)))
        lines = (f"GET /v1/jobs/{job}/result HTTP/1.1", "Host: localhost", f"Authorization: Bearer {TOKENS[0]}")
        connection.sendall("\r\n".join((*lines, "", "")).encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        deadline = time.monotonic() + 20
        answer = service.request("GET", f"/v1/jobs/{job}/result")
        assert answer.status_code == 409
        while answer.status_code == 409 and time.monotonic() < deadline:
            time.sleep(0.2)
            answer = service.request("GET", f"/v1/jobs/{job}/result")
    assert answer.status_code == 200
    assert service.files_that_stay() == []


def test_a_wrong_token_is_refused_before_the_upload_is_read(service):
    with raw_connection(service) as connection:
        connection.sendall(head(2_000_000_000, token="wrong-token-wrong-token"))
        assert connection.recv(4096).startswith(b"HTTP/1.1 401")
    answer = service.request("POST", "/v1/jobs", "wrong-token-wrong-token", data=bytes(20_000_000))
    assert answer.status_code == 401
