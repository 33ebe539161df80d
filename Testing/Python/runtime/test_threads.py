"""Threads on a machine that does other things."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from HSAMSegmentLib.runtime import threads


def test_spinning_is_bounded_unless_the_user_decided_otherwise():
    empty = {}
    assert threads.limit_spinning(empty)
    assert empty == threads.SPIN_SETTINGS
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        own = {name: "3"}
        assert not threads.limit_spinning(own)
        assert own == {name: "3"}


@pytest.mark.parametrize("first", ["HSAMSegmentLib", "HSAMSegmentLib.models.building", "HSAMSegmentLib.cli.main"])
def test_it_is_set_before_torch_is_imported_whatever_is_imported_first(first):
    script = (
        "import os, sys, importlib\n"
        f"importlib.import_module({first!r})\n"
        "print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)\n"
    )
    clean = {name: value for name, value in os.environ.items() if name not in threads._USER_SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY, env=clean
    )
    assert done.stdout.split()[0] == "50000"


def test_after_torch_it_is_too_late_and_said_so():
    import torch  # noqa: F401

    assert not threads.limit_spinning()
    assert "spin" in threads.spin_sentence({})
    assert "GOMP_SPINCOUNT=7" in threads.spin_sentence({"GOMP_SPINCOUNT": "7"})


def test_busy_cores_are_left_to_others(monkeypatch):
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    clock, busy = iter([0.0, 1.0]), iter([100.0, 102.9])
    monkeypatch.setattr(threads.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(threads, "_busy_seconds", lambda: next(busy))
    assert threads.FreeCores().count() == 1


def test_a_quiet_machine_gives_all_cores(monkeypatch):
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    clock, busy = iter([0.0, 1.0]), iter([100.0, 100.1])
    monkeypatch.setattr(threads.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(threads, "_busy_seconds", lambda: next(busy))
    assert threads.FreeCores().count() == 4


def test_the_real_count_is_within_what_this_process_may_use():
    assert 1 <= threads.FreeCores().count() <= threads.usable_cores()


@pytest.mark.parametrize(("text", "number"), [("3", 3), ("4,2", 4), ("", None), ("0", None), ("many", None)])
def test_a_number_that_the_user_gives_wins(monkeypatch, text, number):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert threads.requested_threads() == number


@pytest.mark.skipif(os.name == "nt", reason="Windows has priority classes")
def test_a_worker_takes_a_priority_below_the_application():
    script = (
        "import os\nfrom HSAMSegmentLib.runtime.threads import priority_sentence, set_worker_priority\n"
        "set_worker_priority()\nprint(os.nice(0), priority_sentence())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
        start_new_session=True,
    )
    assert int(done.stdout.split()[0]) >= 10
    assert "Nice" in done.stdout
