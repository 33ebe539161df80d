"""The script that checks a graphics card, tried on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.slow
SCRIPT = REPOSITORY / "Testing" / "Device" / "check.sh"


def _check(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHON": sys.executable}
    command = ["sh", str(SCRIPT), "--device", "cpu", "--quick", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("parity", "compact + hsam, bfloat16 / logits differ"),
        ("throughput", "of the matrix rate"),
        ("volume", "where the time goes"),
        ("finetuning", "compact 64 px, full"),
        ("memory", "left out: it needs CUDA"),
    ],
)
def test_each_part_fills_its_rows(part, expected):
    done = _check("--parts", part)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert expected in done.stdout.replace(" | ", " / ")
    assert f"| {part} | duration of this part |" in done.stdout


def test_the_table_is_written_to_a_file(tmp_path):
    done = _check("--parts", "memory", "--output", str(tmp_path / "table.md"))
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == done.stdout


def test_without_a_card_it_says_what_to_do():
    environment = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(["sh", str(SCRIPT)], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--device cpu --quick" in done.stderr
