"""Freed memory that stays with the process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from HSAMSegmentLib.runtime import heap

_FAULTS = """
import resource, sys
import numpy as np
from HSAMSegmentLib.runtime.heap import keep_freed_memory
kept = sys.argv[1] == "keep" and keep_freed_memory()
def use():
    blocks = [np.ones(12 * 2**20, np.uint8) for _ in range(4)]
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _run(mode: str, **settings: str) -> tuple[bool, int]:
    clean = {name: value for name, value in os.environ.items() if name not in heap._USER_SETTINGS}
    environment = {**clean, "PYTHONPATH": str(REPOSITORY), **settings}
    command = [sys.executable, "-c", _FAULTS, mode]
    kept, faults = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives freed memory back at once")
def test_pages_are_cleared_once_instead_of_for_every_batch():
    _, faults = _run("leave")
    kept, fewer = _run("keep")
    assert kept
    assert faults > 10_000
    assert fewer < faults / 10


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_a_setting_of_the_user_stays():
    kept, _ = _run("keep", MALLOC_TRIM_THRESHOLD_="1000000")
    assert not kept


def test_other_systems_do_without():
    assert not heap.keep_freed_memory("darwin")
    assert not heap.keep_freed_memory("win32")
