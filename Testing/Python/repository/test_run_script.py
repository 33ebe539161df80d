"""Scripts/run.py: sets the project up on a machine that has Python and nothing else, and says what is wrong."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from collections import deque, namedtuple

import pytest
from conftest import REPOSITORY

SCRIPT = REPOSITORY / "Scripts" / "run.py"

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""

# Builds the wheel of an editable installation with the standard library alone, so that the test needs no network.
BACKEND = """
import zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(folder + "/" + name, "w") as wheel:
        wheel.writestr("tiny_project.py", "")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    return name
"""


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("run_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A tiny project with a stand-in for PyTorch, both installable by pip without a network."""
    root = tmp_path / "a project"
    root.mkdir()
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "backend.py").write_text(BACKEND)
    wheel = tmp_path / "faketorch-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("faketorch.py", "")
        archive.writestr("faketorch-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: faketorch\nVersion: 1.0\n")
        archive.writestr("faketorch-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("faketorch-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("HSAMSEGMENT_TORCH", str(wheel))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return root


def importable(environment, module):
    return subprocess.run([str(environment.python), "-c", f"import {module}"], check=False).returncode == 0


def test_the_script_needs_nothing_but_the_standard_library():
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    names = {name.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    names |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    known = getattr(sys, "stdlib_module_names", None)
    if known is None:
        pytest.skip("the list of standard modules exists from Python 3.10 on")
    assert names <= set(known)


def test_help_names_the_commands():
    done = subprocess.run([sys.executable, "-I", str(SCRIPT), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("demo", "test", "setup"))


def test_a_scan_that_does_not_exist_is_refused_before_anything_is_installed(script, project, capsys):
    environment = script.Environment(project)
    arguments = script.build_parser().parse_args(["demo", str(project / "none.nii.gz")])
    with pytest.raises(script.SetupError, match=r"none\.nii\.gz"):
        script.demo(environment, arguments)
    assert not environment.folder.exists()


def test_an_unknown_argument_of_demo_is_refused_and_those_of_test_go_to_pytest(script, capsys):
    with pytest.raises(SystemExit) as ending:
        script.main(["demo", "--modell", "x"])
    assert ending.value.code == 2
    assert "--modell" in capsys.readouterr().err
    arguments, rest = script.build_parser().parse_known_args(["test", "--slow", "-k", "dice", "-x"])
    assert arguments.slow
    assert rest == ["-k", "dice", "-x"]


def test_a_python_that_is_too_old_is_named(script, monkeypatch):
    monkeypatch.setattr(script.sys, "version_info", (3, 8, 18))
    with pytest.raises(script.SetupError, match=r"3\.9 or later"):
        script.check_python()


def test_a_short_disk_is_named_before_the_download(script, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(script.shutil, "disk_usage", lambda folder: usage(10**12, 10**12, 10**8))
    with pytest.raises(script.SetupError, match=r"0\.1 GB are free"):
        script.check_disk(tmp_path)


def test_a_missing_venv_module_is_answered_with_the_package_to_install(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(script.SetupError, match=r"apt install python3\.\d+-venv"):
        script.Environment(tmp_path).create()


@pytest.mark.parametrize(
    ("output", "part"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("Retrying ... Temporary failure in name resolution", "cannot be reached"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no such PyTorch"),
        ("PermissionError: [Errno 13] Permission denied", "permissions"),
        ("something else", "could not install"),
    ],
)
def test_the_reason_of_a_failure_is_told_from_the_output_of_pip(script, output, part):
    assert part in script.reason_of_failure(deque([output]))


@pytest.mark.parametrize("value", [None, "", " "])
def test_torch_is_the_tested_version_unless_the_environment_names_one(script, monkeypatch, value):
    # A workflow that names no version passes an empty variable on.
    monkeypatch.delenv("HSAMSEGMENT_TORCH", raising=False)
    if value is not None:
        monkeypatch.setenv("HSAMSEGMENT_TORCH", value)
    monkeypatch.setattr(script.sys, "version_info", (3, 12, 0))
    monkeypatch.setattr(script.sys, "platform", "linux")
    assert script.torch_requirements() == ["torch==2.13.0"]
    monkeypatch.setattr(script.sys, "version_info", (3, 9, 0))
    assert script.torch_requirements() == ["torch>=2.2"]


def test_a_mac_with_an_intel_processor_gets_the_last_torch_that_was_built_for_it(script, monkeypatch):
    monkeypatch.delenv("HSAMSEGMENT_TORCH", raising=False)
    monkeypatch.setattr(script.sys, "version_info", (3, 12, 0))
    monkeypatch.setattr(script.sys, "platform", "darwin")
    monkeypatch.setattr(script.platform, "machine", lambda: "x86_64")
    assert script.torch_requirements() == ["torch>=2.2"]


def test_torch_can_be_chosen_by_the_environment_and_what_it_needs_with_it(script, monkeypatch):
    monkeypatch.setenv("HSAMSEGMENT_TORCH", "torch==2.2.2 numpy<2")
    assert script.torch_requirements() == ["torch==2.2.2", "numpy<2"]


@pytest.mark.slow
def test_the_first_run_installs_and_the_second_does_nothing(script, project, capsys):
    environment = script.Environment(project)
    environment.ensure()
    assert importable(environment, "faketorch, tiny_project")
    assert "complete" in capsys.readouterr().out
    before = environment.stamp_file.stat().st_mtime_ns
    environment.ensure()
    assert capsys.readouterr().out == ""
    assert environment.stamp_file.stat().st_mtime_ns == before
    (project / "pyproject.toml").write_text(PYPROJECT + "\n# changed\n")
    environment.ensure()
    assert "Installing" in capsys.readouterr().out


@pytest.mark.slow
def test_a_half_made_environment_is_repaired(script, project, capsys):
    environment = script.Environment(project)
    environment.python.parent.mkdir(parents=True)
    environment.python.write_text("not an interpreter")
    os.chmod(environment.python, 0o755)
    environment.ensure()
    assert "Repairing" in capsys.readouterr().out
    assert importable(environment, "faketorch, tiny_project")


@pytest.mark.slow
def test_a_failed_installation_shows_the_end_of_the_log_and_is_not_taken_for_complete(script, project, monkeypatch):
    environment = script.Environment(project)
    monkeypatch.setenv("HSAMSEGMENT_TORCH", "torch==99.0")
    with pytest.raises(script.SetupError) as failure:
        environment.ensure()
    assert "HSAMSEGMENT_TORCH" in str(failure.value)
    # Where pip has a constraint on torch, it says so in place of "No matching distribution found".
    assert re.search(r"(distribution found for|Cannot install) torch==99\.0", str(failure.value))
    assert "torch==99.0" in environment.log_file.read_text()
    assert environment.read_stamp() == {}


def test_a_damaged_stamp_counts_as_none(script, tmp_path):
    environment = script.Environment(tmp_path)
    environment.folder.mkdir()
    environment.stamp_file.write_text("{")
    assert environment.read_stamp() == {}
    environment.stamp_file.write_text(json.dumps(["x"]))
    assert environment.read_stamp() == {}


@pytest.mark.parametrize(
    ("cores", "gigabytes", "processes"), [(1, 64, 1), (2, 24, 2), (16, 8, 2), (4, 2, 1), (64, float("inf"), 8)]
)
def test_tests_run_in_as_many_processes_as_cores_and_memory_allow(script, monkeypatch, cores, gigabytes, processes):
    monkeypatch.setattr(script.os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setattr(script, "memory_gb", lambda: gigabytes)
    assert script.test_processes() == processes


def test_the_memory_of_this_computer_is_known_or_counts_as_enough(script):
    assert script.memory_gb() > 0.5


SUITE = """
import pytest

def test_good():
    pass

def test_without_a_gpu():
    pytest.skip("no GPU")

@pytest.mark.slow
def test_slow():
    pass

def test_wrong():
    assert BOOL
"""


@pytest.mark.parametrize(
    ("options", "works"), [((), True), (("-p", "xdist", "-n", "2"), False)], ids=["one process", "two processes"]
)
def test_the_last_line_says_what_was_tested_and_what_not(tmp_path, options, works):
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    source = (REPOSITORY / "Testing" / "Python" / "tested_and_not.py").read_text(encoding="utf-8")
    (tmp_path / "conftest.py").write_text(source)
    (tmp_path / "test_tiny.py").write_text(SUITE.replace("BOOL", str(works)))
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", *options]
    # Other plugins would take seconds to load, in each process.
    bare = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True, check=False)
    counts = "2 passed" if works else "1 passed, 1 FAILED"
    assert done.stdout.splitlines()[-1] == (
        f"Tested: {counts}, 1 skipped (1 no GPU), 1 left out (slow ones; --slow runs them), "
        "lines not measured (--coverage)."
    ), done.stderr
