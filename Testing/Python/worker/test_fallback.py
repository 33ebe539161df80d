"""Where no worker process comes to life, jobs run in a thread; but not if PyTorch would take the program with it."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from job_driver import finish

from HSAMSegmentLib.errors import DeviceError
from HSAMSegmentLib.runtime.owned_folders import Workspace
from HSAMSegmentLib.worker.fallback import FallbackRunner, torch_crash
from HSAMSegmentLib.worker.process_runner import ProcessRunner
from HSAMSegmentLib.worker.runners import ThreadRunner
from HSAMSegmentLib.workflows.events import Cancelled, Failed, Result
from HSAMSegmentLib.workflows.requests import VerifyRequest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-ins for Python are shell scripts")


@pytest.fixture
def make_runner(tmp_path):
    """A runner whose worker's interpreter is a shell script."""
    workspace, made = Workspace(tmp_path), []

    def make(script, **options):
        made.append(
            FallbackRunner(ProcessRunner(workspace, python=_program(tmp_path, script)), ThreadRunner(), **options)
        )
        return made[-1]

    yield make
    for runner in made:
        runner.close()
    workspace.close()


@pytest.fixture
def request_(tmp_path):
    (tmp_path / "small.bin").write_bytes(b"weights")
    return VerifyRequest(str(tmp_path / "small.bin"))


def _program(folder, script):
    path = folder / "PythonSlicer"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def _broken_torch(folder, body):
    """A torch of our own that comes before the real one."""
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text(body)
    return f'PYTHONPATH="{folder}" exec "{sys.executable}" "$@"'


def test_a_worker_that_ends_before_it_is_ready_gives_its_job_to_the_thread(make_runner, request_):
    runner = make_runner("echo no license >&2; exit 3")
    runner.start(request_)
    assert isinstance(finish(runner)[-1], Result)
    assert runner.worker_pid is None
    runner.start(request_)
    assert isinstance(finish(runner)[-1], Result)


def test_a_program_that_cannot_be_started_gives_its_job_to_the_thread(tmp_path, make_runner, request_):
    runner = make_runner("exit 0")
    (tmp_path / "PythonSlicer").chmod(0o600)
    runner.start(request_)
    assert isinstance(finish(runner)[-1], Result)


def test_a_worker_that_was_killed_before_it_was_ready_is_said_and_not_tried_elsewhere(make_runner, request_):
    runner = make_runner("kill -9 $$")
    runner.start(request_)
    failed = finish(runner)[-1]
    assert isinstance(failed, Failed)
    assert "out of memory" in failed.cause


def test_a_cancel_before_the_worker_is_ready_starts_nothing_else(make_runner, request_):
    runner = make_runner("sleep 30; exit 3")
    runner.start(request_)
    runner.cancel()
    assert finish(runner)[-1] == Cancelled()
    assert not runner.is_running


def test_a_torch_that_would_crash_the_program_keeps_the_job_out_of_it(tmp_path, make_runner, request_):
    python = _broken_torch(tmp_path, "import os; os.abort()")
    runner = make_runner(f'case "$1" in -c) {python};; *) exit 3;; esac')
    runner.start(request_)
    failed = finish(runner)[-1]
    assert isinstance(failed, Failed)
    assert "PyTorch cannot be loaded (SIGABRT)" in failed.cause
    assert failed.exit_code == DeviceError.exit_code
    assert not runner.is_running


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise ImportError('libc10.so is missing')", "ImportError: libc10.so is missing"),
        (f"import os; os.kill(os.getpid(), {int(signal.SIGILL)})", "SIGILL"),
    ],
)
def test_the_probe_names_what_is_wrong_with_torch(tmp_path, body, reason):
    assert reason in torch_crash(_program(tmp_path, _broken_torch(tmp_path, body)))


def test_the_probe_finds_no_fault_in_a_torch_that_works_or_that_nobody_can_ask(tmp_path):
    assert torch_crash(sys.executable) == ""
    assert torch_crash(str(tmp_path / "nowhere")) == ""
    assert torch_crash(_program(tmp_path, "exit 3")) == ""
