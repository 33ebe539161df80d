"""Rules of the house that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY

FOLDERS = ("HSAMSegment", "HSAMSegmentLib", "Scripts")
MACHINE_PATHS = re.compile(r"(?<![\w.])/(work|root|home/\w+|tmp/\w+|opt/\w+|Users/\w+)/")
REGISTRIES = re.compile(r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|conda\.anaconda\.org|anaconda\.com", re.I)
LONGEST_MODULE = 400
LONGEST_FUNCTION = 65


def tracked_files():
    command = ["git", "-C", str(REPOSITORY), "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("this is no git checkout, so which files belong to it is unknown")
    return [REPOSITORY / name for name in done.stdout.splitlines() if (REPOSITORY / name).is_file()]


def text_of(path):
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def modules():
    return [path for folder in FOLDERS for path in sorted((REPOSITORY / folder).rglob("*.py"))]


def identifiers(paths):
    return [str(path.relative_to(REPOSITORY)) for path in paths]


def test_no_file_names_a_folder_of_somebodys_machine():
    found = {}
    for path in tracked_files():
        lines = [line.strip() for line in text_of(path).splitlines() if MACHINE_PATHS.search(line)]
        if lines and path.name != "test_repository.py":
            found[str(path.relative_to(REPOSITORY))] = lines[:3]
    assert not found


def test_no_file_names_a_package_registry():
    found = [path for path in tracked_files() if REGISTRIES.search(text_of(path)) and path.name != "test_repository.py"]
    assert not identifiers(found)


def test_the_builtin_models_stay_small():
    total = sum(path.stat().st_size for path in tracked_files() if path.suffix == ".safetensors")
    assert total <= 40e6


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_module_is_short_and_says_what_it_is(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < LONGEST_MODULE
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "the module has no docstring"
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions}
    assert not {name: lines for name, lines in long.items() if lines > LONGEST_FUNCTION}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_work_is_left_for_later_in_a_module(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"#.*\b(TODO|FIXME|XXX)\b|raise NotImplementedError", text)


def test_importing_the_packages_imports_no_torch():
    program = (
        "import sys, importlib\n"
        "for name in ('', '.cli', '.evaluation', '.images', '.inference', '.io', '.labels', '.models', '.preprocess',"
        " '.report', '.runtime', '.slicer', '.training', '.weights', '.worker', '.workflows'):\n"
        "    importlib.import_module('HSAMSegmentLib' + name)\n"
        "heavy = {'torch', 'monai', 'torchvision', 'scipy', 'matplotlib', 'SimpleITK'} & set(sys.modules)\n"
        "sys.exit(f'imported: {sorted(heavy)}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
