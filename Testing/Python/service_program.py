"""A real service on the loopback interface, as `hsam-segment serve` starts it, and what its clients do."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests
from conftest import REPOSITORY

TOKENS = ("token-of-the-first-client", "token-of-the-second-client")


class RunningService:
    """A service in a process of its own.

    Attributes:
        address: of its HTTP server.
        process: the service; its children are the workers.
        folder: where it keeps uploads.
    """

    def __init__(self, address: str, process: psutil.Process, folder: Path) -> None:
        self.address = address
        self.process = process
        self.folder = folder

    def request(self, method: str, path: str, token: str = TOKENS[0], **options) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
        if not token:
            del headers["Authorization"]
        return requests.request(method, self.address + path, headers=headers, timeout=60, **options)

    def submit(self, content: bytes, token: str = TOKENS[0], **wishes) -> str:
        """Send a scan; returns the id of its job."""
        answer = self.request("POST", "/v1/jobs", token, data=content, params=wishes)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def status(self, job: str, token: str = TOKENS[0]) -> dict:
        answer = self.request("GET", f"/v1/jobs/{job}", token)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait(self, job: str, *states: str, token: str = TOKENS[0], seconds: float = 60.0, pause: float = 0.05) -> dict:
        """Wait until a job is in one of the states, by default in one of its last ones."""
        wanted = states or ("done", "failed", "cancelled")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = self.status(job, token)
            if status["state"] in wanted:
                return status
            time.sleep(pause)
        raise AssertionError(f"the job is still {status}")

    def wait_until_gone(self, job: str, seconds: float = 60.0) -> None:
        """Wait until a delivered job is forgotten; a busy service does it a moment after the last byte."""
        deadline = time.monotonic() + seconds
        while self.request("GET", f"/v1/jobs/{job}").status_code != 404:
            assert time.monotonic() < deadline, f"the job is still {self.status(job)}"
            time.sleep(0.05)

    def files(self) -> list[Path]:
        """Uploads and results that are there now; the messages between service and worker do not count."""
        # os.walk passes over a folder that the service deletes meanwhile.
        found = (Path(folder, name) for folder, folders, files in os.walk(self.folder) for name in (*folders, *files))
        return [path for path in found if any(part.startswith("scan-") for part in path.relative_to(self.folder).parts)]

    def files_that_stay(self, seconds: float = 10.0, *, kept: int = 0) -> list[Path]:
        """What is there when the service has had time to delete all but what it keeps."""
        deadline = time.monotonic() + seconds
        while len(self.files()) > kept and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.files()

    def worker(self) -> psutil.Process:
        """The process that computes."""
        deadline = time.monotonic() + 30.0
        while time.monotonic() < deadline:
            children = self.process.children(recursive=True)
            if children:
                return children[-1]
            time.sleep(0.02)
        raise AssertionError("there is no worker")


@contextmanager
def running_service(
    folder: Path, models: Path, *arguments: str, tokens: tuple[str, ...] = TOKENS, is_killed: bool = False
) -> Iterator[RunningService]:
    """Start a service whose store has the models of a folder; it is stopped at the end, and has left nothing then.

    Args:
        folder: for its store, its uploads and its log.
        models: bundles that it gets.
        arguments: of the command line.
        tokens: of its clients; none for a service without.
        is_killed: whether the test ends it by force.
    """
    home, uploads = folder / "home", folder / "uploads"
    (home / "models").mkdir(parents=True)
    for file in models.glob("*.safetensors"):
        (home / "models" / file.name).write_bytes(file.read_bytes())
    command = [
        sys.executable,
        "-m",
        "HSAMSegmentLib",
        "serve",
        "--port",
        "0",
        "--device",
        "cpu",
        "--folder",
        str(uploads),
    ]
    if tokens:
        (folder / "tokens").write_text("\n".join(tokens), encoding="utf-8")
        command += ["--token-file", str(folder / "tokens")]
    environment = {**os.environ, "HSAMSEGMENT_HOME": str(home), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [*command, *arguments], stdout=subprocess.PIPE, stderr=log, env=environment, text=True
        )
        try:
            line = process.stdout.readline()
            found = re.search(r"http://\S+:\d+", line)
            assert found, (line, (folder / "log").read_text())
            service = RunningService(found.group(), psutil.Process(process.pid), uploads)
            wait_until_it_answers(service)
            yield service
        finally:
            process.terminate()
            process.wait(timeout=20)
            process.stdout.close()
    if is_killed:
        return
    assert process.returncode == 0, (folder / "log").read_text()
    assert not list(uploads.iterdir())


def wait_until_it_answers(service: RunningService) -> None:
    deadline = time.monotonic() + 30.0
    while time.monotonic() < deadline:
        try:
            if service.request("GET", "/health").status_code == 200:
                return
        except requests.ConnectionError:
            time.sleep(0.05)
    raise AssertionError("the service does not answer")


def zip_of(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP archive in memory."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return memory.getvalue()
