"""Rules of the house that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY

FOLDERS = ("HSAMSegment", "HSAMSegmentLib", "Scripts", "recipes")
MACHINE_PATHS = re.compile(r"(?<![\w.])/(work|root|home/\w+|tmp/\w+|opt/\w+|Users/\w+)/")
REGISTRIES = re.compile(r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|conda\.anaconda\.org|anaconda\.com", re.I)
MOST_MODULES = 15


def tracked_files():
    command = ["git", "-C", str(REPOSITORY), "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("this is not a git checkout, so which files belong to it is unknown")
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


def test_no_class_name_has_two_meanings():
    homes = {}
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(str(path.relative_to(REPOSITORY)))
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_no_folder_of_the_library_holds_too_many_modules():
    counts = {}
    for path in (REPOSITORY / "HSAMSegmentLib").rglob("*.py"):
        folder = str(path.parent.relative_to(REPOSITORY))
        counts[folder] = counts.get(folder, 0) + (path.name != "__init__.py")
    assert {name: count for name, count in counts.items() if count > MOST_MODULES} == {}


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
