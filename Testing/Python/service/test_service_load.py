"""Many clients at once: no job is lost or mixed up, no one reads another's, and memory does not grow with uploads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from service_fixtures import *  # noqa: F403 - fixtures
from service_program import running_service
from small_scans import write_scan

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.io.volume_files import read_volume

CLIENTS = 50
UPLOAD_MB = 6


@pytest.fixture(scope="module")
def clients():
    return tuple(f"token-of-client-number-{index:04d}" for index in range(CLIENTS))


@pytest.fixture(scope="module")
def service(tmp_path_factory, models, clients):
    with running_service(tmp_path_factory.mktemp("service"), models, "--model", "tiny", tokens=clients) as running:
        yield running


def padded_scan(folder, slices):
    """A scan of few slices, told apart by their number, in a file of some megabytes that hold nothing."""
    geometry = Geometry(size=(32, 32, slices), spacing_mm=(8.0, 8.0, 3.0))
    array = np.zeros(geometry.shape, np.int16)
    array[:, 8:24, 8:24] = 200
    path = write_scan(folder / f"{slices}.nrrd", Volume(array, geometry))
    return path.read_bytes() + bytes(UPLOAD_MB * 1_000_000)


@pytest.mark.slow
def test_fifty_clients_at_once_get_each_their_own_result(service, clients, tmp_path):
    before = service.process.memory_info().rss
    highest = [before]
    is_over = threading.Event()

    def watch():
        while not is_over.wait(0.02):
            highest[0] = max(highest[0], service.process.memory_info().rss)

    at_once = threading.Barrier(CLIENTS)
    jobs = {}

    def client(index):
        slices, token = 2 + index, clients[index]
        content = padded_scan(tmp_path, slices)
        at_once.wait(timeout=60)
        jobs[token] = job = service.submit(content, token)
        status = service.wait(job, token=token, seconds=120, pause=1.0)
        assert status["state"] == "done", status
        other = clients[(index + 1) % CLIENTS]
        assert service.request("GET", f"/v1/jobs/{job}/result", other).status_code == 404
        answer = service.request("GET", f"/v1/jobs/{job}/result", token)
        assert answer.status_code == 200
        (tmp_path / f"{slices}.nii.gz").write_bytes(answer.content)
        return slices, read_volume(tmp_path / f"{slices}.nii.gz").geometry.size

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            found = list(pool.map(client, range(CLIENTS)))
    finally:
        is_over.set()
        watcher.join()
    print(f"{(highest[0] - before) / 1e6:.0f} MB more at most, {before / 1e6:.0f} MB before")
    assert found == [(slices, (32, 32, slices)) for slices in range(2, 2 + CLIENTS)]
    assert len(set(jobs.values())) == CLIENTS
    assert service.files_that_stay() == []
    # All uploads together have 300 MB.
    assert highest[0] - before < 150e6, f"{(highest[0] - before) / 1e6:.0f} MB"


@pytest.mark.slow
def test_a_client_with_many_scans_does_not_keep_the_others_waiting(service, clients, nifti, long_scan):
    many = [service.submit(long_scan, clients[0]) for _ in range(4)]
    service.wait(many[0], "running", token=clients[0])
    one = service.submit(nifti, clients[1])
    service.wait(one, token=clients[1])
    states = [service.status(job, clients[0])["state"] for job in many]
    assert states.count("waiting") >= 2, states
    for job in many:
        assert service.request("DELETE", f"/v1/jobs/{job}", clients[0]).status_code == 204
