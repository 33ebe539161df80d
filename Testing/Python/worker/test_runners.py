from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import psutil
import pytest
from job_driver import finish

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.runtime.owned_folders import Workspace, remove_abandoned
from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.worker.array_export import ArrayExport
from HSAMSegmentLib.worker.process_runner import ProcessRunner
from HSAMSegmentLib.worker.runners import InlineRunner, ThreadRunner
from HSAMSegmentLib.workflows.events import Cancelled, Failed, Result
from HSAMSegmentLib.workflows.requests import ProbeRequest, VerifyRequest

posix = pytest.mark.skipif(os.name == "nt", reason="uses POSIX signals")


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path)
    yield workspace
    workspace.close()


@pytest.fixture
def process_runner(workspace):
    runner = ProcessRunner(workspace)
    yield runner
    runner.close()


@pytest.fixture
def small_file(tmp_path):
    path = tmp_path / "small.bin"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def huge_file(tmp_path):
    """A sparse file that takes minutes to hash and no space on disk."""
    path = tmp_path / "huge.bin"
    with path.open("wb") as stream:
        stream.truncate(400 * 2**30)
    return path


def wait_for_progress(runner):
    while not any(isinstance(event, Progress) for event in runner.poll()):
        time.sleep(0.01)


def is_gone(pid, seconds=10.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def make_runner(kind, workspace):
    return {"inline": InlineRunner, "thread": ThreadRunner, "process": lambda: ProcessRunner(workspace)}[kind]()


@pytest.mark.parametrize("kind", ["inline", "thread", "process"])
def test_every_runner_gives_the_same_result_and_then_is_free(kind, workspace, small_file):
    runner = make_runner(kind, workspace)
    runner.start(VerifyRequest(str(small_file)))
    *progress, last = finish(runner)
    assert last == Result({"sha256": hashlib.sha256(b"weights").hexdigest(), "bytes": 7})
    assert progress
    assert not runner.is_running
    runner.close()


@pytest.mark.parametrize("kind", ["inline", "thread", "process"])
def test_every_runner_tells_a_failure_as_a_sentence(kind, workspace, small_file):
    runner = make_runner(kind, workspace)
    runner.start(VerifyRequest(str(small_file), sha256="00"))
    failed = finish(runner)[-1]
    assert isinstance(failed, Failed)
    assert failed.error == "CheckpointError"
    assert "not the one that was announced" in failed.cause
    assert "Traceback" in failed.details
    runner.close()


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_cancelled_job_ends_as_cancelled_and_the_runner_takes_the_next_one(kind, workspace, small_file, huge_file):
    runner = make_runner(kind, workspace)
    runner.start(VerifyRequest(str(huge_file)))
    wait_for_progress(runner)
    with pytest.raises(RequestError, match="Another job is running"):
        runner.start(VerifyRequest(str(small_file)))
    runner.cancel()
    assert finish(runner, seconds=5.0)[-1] == Cancelled()
    runner.start(VerifyRequest(str(small_file)))
    assert isinstance(finish(runner)[-1], Result)
    runner.close()


def test_the_worker_stays_for_the_next_job(process_runner, small_file):
    pids = set()
    for _ in range(2):
        process_runner.start(VerifyRequest(str(small_file)))
        finish(process_runner)
        pids.add(process_runner.worker_pid)
    assert len(pids) == 1


@posix
def test_a_worker_that_does_not_answer_a_cancel_is_killed(process_runner, huge_file, small_file):
    process_runner.start(VerifyRequest(str(huge_file)))
    wait_for_progress(process_runner)
    pid = process_runner.worker_pid
    os.kill(pid, signal.SIGSTOP)
    process_runner.cancel()
    assert finish(process_runner, seconds=5.0)[-1] == Cancelled()
    assert is_gone(pid)
    process_runner.start(VerifyRequest(str(small_file)))
    assert isinstance(finish(process_runner)[-1], Result)


@posix
@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGKILL, "out of memory"), (signal.SIGSEGV, "crashed (signal 11, SIGSEGV)")]
)
def test_a_worker_that_dies_ends_its_job_with_a_sentence_and_the_next_job_runs(
    process_runner, huge_file, small_file, number, words
):
    process_runner.start(VerifyRequest(str(huge_file)))
    wait_for_progress(process_runner)
    os.kill(process_runner.worker_pid, number)
    failed = finish(process_runner)[-1]
    assert isinstance(failed, Failed)
    assert words in failed.cause
    assert failed.error == "WorkerDied"
    if number == signal.SIGSEGV:
        assert "Segmentation fault" in failed.details
    process_runner.start(VerifyRequest(str(small_file)))
    assert isinstance(finish(process_runner)[-1], Result)


@posix
def test_behind_a_launcher_the_process_that_computes_is_killed_too(workspace, huge_file, tmp_path):
    launcher = tmp_path / "PythonSlicer"
    launcher.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\nexit $?\n')
    launcher.chmod(0o755)
    runner = ProcessRunner(workspace, python=str(launcher))
    runner.start(VerifyRequest(str(huge_file)))
    wait_for_progress(runner)
    pid = runner.worker_pid
    assert "sh" not in psutil.Process(pid).name()
    runner.close()
    assert is_gone(pid)


@posix
def test_a_worker_whose_parent_was_killed_ends_and_tidies_up(tmp_path, huge_file):
    script = f"""
        import time
        from HSAMSegmentLib.worker.process_runner import ProcessRunner
        from HSAMSegmentLib.workflows.requests import VerifyRequest
        from HSAMSegmentLib.runtime.owned_folders import Workspace
        runner = ProcessRunner(Workspace({str(tmp_path)!r}))
        runner.start(VerifyRequest({str(huge_file)!r}))
        while not runner.poll():
            time.sleep(0.01)
        print(runner.worker_pid, flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert is_gone(worker)
    assert not list(tmp_path.glob("hsamsegment-*"))


def test_closing_leaves_no_process_and_no_file(tmp_path, small_file):
    workspace = Workspace(tmp_path)
    runner = ProcessRunner(workspace)
    runner.start(VerifyRequest(str(small_file)))
    finish(runner)
    pid = runner.worker_pid
    runner.close()
    workspace.close()
    assert is_gone(pid)
    assert not workspace.folder.exists()


def test_the_worker_starts_without_torch(process_runner):
    process_runner.start(ProbeRequest(devices=False))
    result = finish(process_runner)[-1]
    assert result.values["packages"]["numpy"] == np.__version__
    libraries = [item.path for item in psutil.Process(process_runner.worker_pid).memory_maps()]
    assert not [path for path in libraries if "libtorch" in path]


def test_a_python_that_does_not_exist_is_an_error_at_once(workspace, small_file):
    runner = ProcessRunner(workspace, python="/nowhere/python")
    with pytest.raises(OSError, match="python"):
        runner.start(VerifyRequest(str(small_file)))
    assert not runner.is_running


def test_an_array_is_written_in_pieces_and_exactly(workspace):
    array = np.arange(7 * 5 * 3, dtype=np.int16).reshape(7, 5, 3)[:, ::-1]
    path = workspace.job_folder() / "scan.npy"
    export = ArrayExport(array, path, piece_bytes=2 * array[:1].nbytes)
    steps = [export.step() for _ in range(4)]
    assert steps == [False, False, False, True]
    assert np.array_equal(np.load(path, mmap_mode="r"), array)


def test_folders_of_dead_processes_are_removed_and_others_kept(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead = tmp_path / f"hsamsegment-{child.pid}-abc"
    alive = tmp_path / f"hsamsegment-{os.getpid()}-abc"
    foreign = tmp_path / "hsamsegment-notes"
    for folder in (dead, alive, foreign):
        folder.mkdir()
    remove_abandoned(tmp_path)
    assert [folder.exists() for folder in (dead, alive, foreign)] == [False, True, True]
