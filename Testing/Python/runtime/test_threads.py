"""Threads on a machine that does other things."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from HSAMSegmentLib.runtime import threads


def test_spinning_is_bounded_where_the_user_did_not_decide():
    empty = {}
    assert threads.limit_spinning(empty)
    assert empty == threads.SPIN_SETTINGS
    assert not threads.limit_spinning(empty)


@pytest.mark.parametrize(("own", "other"), [("GOMP_SPINCOUNT", "KMP_BLOCKTIME"), ("KMP_BLOCKTIME", "GOMP_SPINCOUNT")])
def test_each_spin_setting_is_judged_by_itself(own, other):
    environment = {own: "3"}
    assert threads.limit_spinning(environment)
    assert environment == {own: "3", other: threads.SPIN_SETTINGS[other]}


def test_a_wait_policy_of_the_user_wins_over_both_spin_settings():
    environment = {"OMP_WAIT_POLICY": "PASSIVE"}
    assert not threads.limit_spinning(environment)
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE"}


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


@pytest.mark.parametrize(("text", "number"), [("3", 3), ("4,2", 4), ("", None), ("0", None), ("many", None)])
def test_a_number_that_the_user_gives_wins(monkeypatch, text, number):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert threads.requested_threads() == number


@pytest.mark.parametrize(("platform", "niceness"), [("linux", 10), ("darwin", 5), ("freebsd14", 10)])
def test_the_priority_of_a_worker_follows_the_platform(platform, niceness):
    assert threads.worker_niceness(platform) == niceness


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
    assert int(done.stdout.split()[0]) >= threads.worker_niceness()
    assert "Nice" in done.stdout
