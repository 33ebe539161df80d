"""The script that runs the self test in a real Slicer. No Slicer is here: a small program stands in for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
SCRIPT = REPOSITORY / "Scripts" / "test_in_slicer.py"


def run_script(executable=None):
    environment = {key: value for key, value in os.environ.items() if key != "SLICER_EXECUTABLE"}
    if executable is not None:
        environment["SLICER_EXECUTABLE"] = str(executable)
    command = [sys.executable, str(SCRIPT)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_without_slicer_the_self_test_is_said_to_be_skipped_and_why():
    done = run_script()
    assert done.returncode == 0
    assert done.stdout.startswith("skipped: SLICER_EXECUTABLE names no Slicer")


def test_a_wrong_path_is_an_error_and_no_skip(tmp_path):
    done = run_script(tmp_path / "no-slicer")
    assert done.returncode == 2
    assert "there is no such file" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for Slicer is a script with a shebang line")
@pytest.mark.parametrize("exit_code", [0, 1])
def test_slicer_is_told_to_run_the_test_of_this_module_and_its_verdict_is_passed_on(tmp_path, exit_code):
    program, record = tmp_path / "slicer", tmp_path / "arguments.json"
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], open({str(record)!r}, 'w'))\n"
        f"sys.exit({exit_code})\n"
    )
    program.chmod(0o755)
    assert run_script(program).returncode == exit_code
    *options, code = json.loads(record.read_text())
    module = str(REPOSITORY / "HSAMSegment")
    assert options == [
        *("--no-splash", "--no-main-window", "--testing"),
        *("--additional-module-paths", module, "--python-code"),
    ]
    compile(code, "code", "exec")
    assert f"runUnitTest([{module!r}], 'HSAMSegment')" in code
