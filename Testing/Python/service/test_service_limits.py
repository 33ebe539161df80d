"""Who may use the service, how long jobs run and results wait, and whose turn it is."""

from __future__ import annotations

import time

import pytest
import requests
from program_environment import Program, one_line
from service_fixtures import *  # noqa: F403 - fixtures
from service_program import running_service

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.volume import VolumeInput
from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.service.jobs import CANCELLED, DONE, JobBoard, QueueFullError, UnknownJobError
from HSAMSegmentLib.service.settings import ServiceSettings, Tokens, is_loopback, read_tokens
from HSAMSegmentLib.workflows.segment.segment_request import OutputFiles, SegmentRequest


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def board(clock):
    return JobBoard(waiting_jobs=5, kept_jobs=8, keep_seconds=100.0, clock=clock)


def add(board, owner, folder):
    folder.mkdir()
    (folder / "scan.nii").write_bytes(b"scan")
    files = OutputFiles(folder / "organs.nii")
    return board.add(owner, folder, SegmentRequest(VolumeInput(path=str(folder / "scan.nii")), files=files))


def test_the_next_job_is_of_the_owner_who_was_served_longest_ago(board, tmp_path):
    owners = ["a", "a", "a", "b", "c"]
    jobs = [add(board, owner, tmp_path / str(index)) for index, owner in enumerate(owners)]
    assert [board.place_in_queue(job) for job in jobs] == [0, 1, 2, 3, 4]
    taken = [board.take(0.0) for _ in owners]
    assert [job.owner for job in taken] == ["a", "b", "c", "a", "a"]
    assert board.take(0.0) is None


def test_no_more_wait_than_allowed_and_uploads_count(board, tmp_path):
    for index in range(4):
        add(board, "a" if index % 2 else "b", tmp_path / str(index))
    with board.place("a"), pytest.raises(QueueFullError, match="Try again later"), board.place("b"):
        pass
    with board.place("b"):
        pass


def test_one_client_does_not_take_all_places(board, tmp_path):
    for index in range(4):
        add(board, "a", tmp_path / str(index))
    with pytest.raises(QueueFullError, match="your share"), board.place("a"):
        pass
    with board.place("b"):
        pass


def test_results_that_nobody_fetches_bound_what_is_taken(board, tmp_path):
    for index in range(8):
        add(board, "a", tmp_path / str(index))
        job = board.take(0.0)
        job.result_file.write_bytes(b"organs")
        board.end(job, DONE)
        assert [path.name for path in job.folder.iterdir()] == ["organs.nii"], "the scan is not needed any more"
    with pytest.raises(QueueFullError, match="Fetch or delete"), board.place("b"):
        pass


def test_a_result_that_is_not_fetched_is_removed_after_its_time(board, clock, tmp_path):
    job = add(board, "a", tmp_path / "job")
    board.take(0.0)
    board.end(job, DONE)
    clock.now = 99.0
    assert board.expire() == 0
    assert board.start_delivery(job)
    assert not board.start_delivery(job)
    clock.now = 201.0
    assert board.expire() == 0, "it is being sent"
    board.end_delivery(job, remove=False)
    clock.now = 302.0
    assert board.expire() == 1
    assert not job.folder.exists()
    with pytest.raises(UnknownJobError):
        board.find(job.id, "a")


def test_a_job_that_is_removed_while_it_runs_leaves_no_files(board, tmp_path):
    job = add(board, "a", tmp_path / "job")
    board.take(0.0)
    board.remove(job)
    assert job.wants_cancel
    assert job.folder.exists(), "the worker still uses it"
    board.report_progress(job, Progress(0.5, "Segmenting slices"))
    board.end(job, CANCELLED)
    assert not job.folder.exists()


@pytest.mark.parametrize(
    ("host", "is_own"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_other_computers_need_a_token(host, is_own):
    assert is_loopback(host) == is_own
    if is_own:
        assert ServiceSettings(host=host).tokens == ()
    else:
        with pytest.raises(RequestError, match="token"):
            ServiceSettings(host=host)


@pytest.mark.parametrize(
    "content", ["", "# nothing\n", "short\n", "with a blank in the middle\n", "ünïcödé-ünïcödé-ü\n"]
)
def test_tokens_that_are_not_safe_are_refused(tmp_path, content):
    path = tmp_path / "tokens"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RequestError):
        read_tokens(path)


def test_a_token_is_told_from_all_others():
    tokens = Tokens(["first-token-of-somebody", "second-token-of-somebody"])
    first, second = tokens.owner("first-token-of-somebody"), tokens.owner("second-token-of-somebody")
    assert first
    assert second
    assert first != second
    assert "token" not in first
    for wrong in ("", "first-token-of-somebod", "first-token-of-somebody ", "\udcff"):
        assert tokens.owner(wrong) is None


def test_a_job_that_takes_too_long_is_stopped(tmp_path, models, long_scan, nifti):
    limits = ("--max-job-minutes", "0.005", "--model", "tiny")
    with running_service(tmp_path, models, *limits) as service:
        job = service.submit(long_scan)
        status = service.wait(job)
        assert status["state"] == "failed"
        assert "longer than" in status["error"]
        assert service.files_that_stay() == []


def test_without_a_token_only_programs_of_this_computer_are_served(tmp_path, models, nifti):
    with running_service(tmp_path, models, "--model", "tiny", "--keep-minutes", "0.02", tokens=()) as service:
        job = service.submit(nifti, token="")
        assert service.wait(job, token="")["state"] == "done"
        time.sleep(2.0)
        assert service.request("GET", f"/v1/jobs/{job}", "").status_code == 404, "its time is over"
        assert service.files_that_stay() == []
        for headers in ({"Host": "attacker.example"}, {"Origin": "https://attacker.example"}, {"Origin": "null"}):
            answer = service.request("POST", "/v1/jobs", "", data=nifti, headers=headers)
            assert answer.status_code == 403
        own = {"Origin": service.address, "Host": service.address[len("http://") :].replace("127.0.0.1", "localhost")}
        assert service.request("GET", "/v1/models", "", headers=own).status_code == 200


def test_an_address_that_is_taken_and_a_wrong_certificate_are_sentences(service, tmp_path):
    serve, port = Program(tmp_path / "store", tmp_path / "work"), service.address.rpartition(":")[2]
    done = serve("serve", "--port", port)
    assert done.returncode == 2
    assert "cannot listen" in one_line(done)
    (tmp_path / "certificate.pem").write_text("none")
    done = serve("serve", "--port", "0", "--certificate", str(tmp_path / "certificate.pem"))
    assert done.returncode == 2
    assert "certificate" in one_line(done)
    done = serve("serve", "--host", "0.0.0.0")
    assert done.returncode == 2
    assert "--token-file" in one_line(done)


def test_the_service_that_is_killed_leaves_no_worker_and_no_files(tmp_path, models, long_scan):
    with running_service(tmp_path, models, "--model", "tiny", is_killed=True) as service:
        job = service.submit(long_scan)
        service.wait(job, "running")
        worker, folder = service.worker(), service.folder
        service.process.kill()
        worker.wait(timeout=20)
        deadline = time.monotonic() + 10
        while list(folder.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(folder.iterdir()) == []
        with pytest.raises(requests.ConnectionError):
            service.request("GET", "/health")
