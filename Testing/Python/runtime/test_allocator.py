"""Memory that is given back, in a process that Dask started."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY

PROGRAM = """
import resource
import numpy as np
from HSAMSegmentLib.runtime.heap import keep_freed_memory_of_dask
print(keep_freed_memory_of_dask())
for _ in range(3):
    np.ones(1 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(1 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"),
    reason="this setting is glibc's",
)
def test_freed_memory_is_kept_where_dask_gave_it_back_and_nothing_is_touched_elsewhere():
    answers = []
    for variables in ({}, {"MALLOC_TRIM_THRESHOLD_": "65536"}):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        environment.update(variables, PYTHONPATH=str(REPOSITORY))
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
        )
        answers.append(done.stdout.split())
    assert [answer[0] for answer in answers] == ["False", "True"]
    # 20 arrays of 2048 pages each would take 40960 new pages.
    assert int(answers[1][1]) < 4000
