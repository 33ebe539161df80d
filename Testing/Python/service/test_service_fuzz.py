"""The service under schemathesis and a fuzzer: it answers everything, with the statuses that it documents."""

from __future__ import annotations

import random
import socket
import subprocess
import sys

import pytest
from service_fixtures import *  # noqa: F403 - fixtures
from service_program import TOKENS

SEED = 7


@pytest.mark.slow
def test_schemathesis_finds_nothing_that_the_description_does_not_say(service, nifti):
    pytest.importorskip("schemathesis", reason="comes with the extra 'dev'")
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{service.address}/openapi.json"),
        *("-H", f"Authorization: Bearer {TOKENS[0]}", "--checks"),
        "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,ignored_auth",
        *("--max-examples", "15", "--seed", str(SEED), "--phases", "examples,coverage,fuzzing", "--workers", "1"),
    ]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    job = service.submit(nifti)
    assert service.wait(job)["state"] == "done"
    assert service.request("DELETE", f"/v1/jobs/{job}").status_code == 204


def mutated(content: bytes, dice: random.Random) -> bytes:
    """The same bytes with some changed, cut out, or put in."""
    data = bytearray(content)
    for _ in range(dice.randint(1, 20)):
        place = dice.randrange(len(data))
        change = dice.randrange(3)
        if change == 0:
            data[place] = dice.randrange(256)
        elif change == 1:
            del data[place : place + dice.randrange(64)]
        else:
            data[place:place] = dice.randbytes(dice.randrange(64))
        data = data or bytearray(b"\0")
    return bytes(data)


@pytest.mark.slow
def test_damaged_scans_and_archives_end_with_a_sentence(service, nifti, dicom_zip):
    dice = random.Random(SEED)
    for _ in range(60):
        content = mutated(dice.choice((nifti, dicom_zip)), dice)
        answer = service.request("POST", "/v1/jobs", data=content)
        assert answer.status_code in (202, 422), answer.text
        if answer.status_code == 422:
            assert "Traceback" not in answer.text
            continue
        job = answer.json()["id"]
        status = service.wait(job, seconds=60)
        assert status["state"] in ("done", "failed")
        assert str(service.folder) not in status["error"]
        assert "unexpected" not in status["error"], status["error"]
        assert service.request("DELETE", f"/v1/jobs/{job}").status_code == 204
    assert service.files_that_stay() == []


@pytest.mark.slow
def test_damaged_requests_end_with_an_answer_or_a_closed_connection(service, nifti):
    dice = random.Random(SEED)
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + nifti[:3000] + b"\r\n--x--\r\n"
    lines = (
        "POST /v1/jobs?format=nii HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {TOKENS[0]}",
        "Content-Type: multipart/form-data; boundary=x",
        f"Content-Length: {len(body)}",
    )
    request = "\r\n".join((*lines, "", "")).encode() + body
    host, port = service.address[len("http://") :].split(":")
    for _ in range(150):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(mutated(request, dice))
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65536)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 "), answer
            assert not answer.startswith(b"HTTP/1.1 500"), answer
    job = service.submit(nifti)
    assert service.wait(job, seconds=120)["state"] == "done"
