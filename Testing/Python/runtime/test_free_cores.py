"""Cores that are free: of those that this process may use, without what others use elsewhere."""

from __future__ import annotations

import subprocess
import sys
from collections import namedtuple

import psutil
import pytest

from HSAMSegmentLib.runtime import threads
from HSAMSegmentLib.runtime.threads import FreeCores, container_quota

Times = namedtuple("Times", "user system idle nice")


@pytest.fixture
def machine(monkeypatch):
    """A machine of eight processors whose clock and loads are told; returns the seconds used so far, by processor."""
    used = [0.0] * 8
    clock = [0.0]
    monkeypatch.setattr(threads, "allowed_cpus", lambda: frozenset(range(8)))
    monkeypatch.setattr(threads, "container_quota", lambda: sys.maxsize)
    monkeypatch.setattr(threads, "_online_cpus", lambda: list(range(8)))
    monkeypatch.setattr(threads, "_own_seconds", lambda counts_nice: 0.0)
    monkeypatch.setattr(threads.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8)
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [Times(seconds, 0.0, 0.0, 0.0) for seconds in used])

    def work(seconds, **load):
        clock[0] += seconds
        for number, part in load.items():
            used[int(number[3:])] += part * seconds

    return work


def test_busy_cores_are_left_to_others(machine):
    free = FreeCores()
    machine(1.0, cpu0=1.0, cpu5=0.9, cpu7=1.0)
    assert free.count() == 5


def test_a_quiet_machine_gives_all_cores_and_a_full_one_gives_one(machine):
    free = FreeCores()
    machine(1.0, cpu0=0.1)
    assert free.count() == 8
    free = FreeCores()
    machine(1.0, **{f"cpu{number}": 1.0 for number in range(8)})
    assert free.count() == 1


def test_the_load_of_cores_that_this_process_may_not_use_does_not_count(machine, monkeypatch):
    monkeypatch.setattr(threads, "allowed_cpus", lambda: frozenset({6, 7}))
    free = FreeCores()
    machine(1.0, **{f"cpu{number}": 1.0 for number in range(6)})
    assert free.count() == 2
    free = FreeCores()
    machine(1.0, cpu7=1.0)
    assert free.count() == 1


def test_processors_that_are_switched_off_do_not_shift_the_numbers(machine, monkeypatch):
    monkeypatch.setattr(threads, "_online_cpus", lambda: [0, 1, 2, 3, 8, 9, 10, 11])
    monkeypatch.setattr(threads, "allowed_cpus", lambda: frozenset({8, 9}))
    free = FreeCores()
    machine(1.0, cpu4=1.0)  # the fifth of the list, which is number 8
    assert free.count() == 1


def test_a_quota_takes_nothing_from_the_cores_that_others_leave(machine, monkeypatch):
    monkeypatch.setattr(threads, "container_quota", lambda: 2)
    free = FreeCores()
    machine(1.0, cpu0=1.0, cpu1=1.0, cpu2=1.0)
    assert free.count() == 2


def test_a_sample_that_began_long_ago_waits_for_nothing(machine, monkeypatch):
    def refuse(seconds):
        raise AssertionError("waited")

    monkeypatch.setattr(threads.time, "sleep", refuse)
    free = FreeCores()
    machine(3.0)
    assert free.count() == 8


def test_the_work_of_children_counts_as_own():
    script = "import time\nwhile time.process_time() < 0.5: pass\nprint(1, flush=True)\ninput()"
    before = threads._own_seconds(counts_nice=True)
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    assert threads._own_seconds(counts_nice=True) - before >= 0.4
    child.communicate(b"\n")
    if sys.platform.startswith("linux"):  # elsewhere the time of ended children is not kept
        assert threads._own_seconds(counts_nice=True) - before >= 0.4


def test_the_real_count_is_within_what_this_process_may_use():
    assert 1 <= FreeCores().count() <= threads.usable_cores()


@pytest.mark.parametrize(
    ("text", "numbers"), [("0-3,6", [0, 1, 2, 3, 6]), ("0", [0]), ("0-1,4-5\n", [0, 1, 4, 5]), ("", [])]
)
def test_the_list_of_processors_is_read(tmp_path, text, numbers):
    (tmp_path / "online").write_text(text)
    assert threads._online_cpus(tmp_path / "online") == numbers


def version_1(group, quota):
    """Files of a group of version 1."""
    return {f"{group}/cpu.cfs_quota_us": f"{quota}\n", f"{group}/cpu.cfs_period_us": "100000\n"}


@pytest.fixture
def quota(tmp_path):
    """The quota that files of control groups tell: lines of the list, then file names with their content."""

    def read(groups, files):
        for name, content in files.items():
            (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "root" / name).write_text(content)
        (tmp_path / "groups").write_text(groups)
        return container_quota(tmp_path / "groups", tmp_path / "root")

    return read


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, sys.maxsize),
        ("0::/\n", {"cpu.max": "350000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "100000 100000\n", "a/cpu.max": "400000 100000\n"}, 1),
        ("0::/../b\n", {"cpu.max": "400000 100000\n"}, 4),
        ("4:cpu,cpuacct:/d\n0::/\n", version_1("cpu,cpuacct/d", -1), sys.maxsize),
        ("4:cpu,cpuacct:/d\n", version_1("cpu,cpuacct/d", 250000), 2),
        ("4:cpu,cpuacct:/d/e\n", {**version_1("cpu,cpuacct/d", 400000), **version_1("cpu,cpuacct/d/e", -1)}, 4),
        ("1:cpu:/docker/f00\n", version_1("cpu", 300000), 3),
        ("9:name=systemd:/\n", {"cpu.max": "100000 100000\n"}, sys.maxsize),
        ("", {}, sys.maxsize),
    ],
)
def test_the_quota_is_the_smallest_of_the_group_and_those_around_it(quota, groups, files, cores):
    assert quota(groups, files) == cores


def test_a_system_without_control_groups_has_no_quota(tmp_path):
    assert container_quota(tmp_path / "none", tmp_path) == sys.maxsize
