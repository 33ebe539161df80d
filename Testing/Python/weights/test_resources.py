"""The files that come along are found however the program is installed, or a sentence says that they are missing."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
ASK = "from HSAMSegmentLib.weights.resources import resource_folder; print(resource_folder())"


def found_from(folder: Path) -> str:
    """What a program says that finds the package in `folder`."""
    run = subprocess.run([sys.executable, "-c", ASK], cwd=folder, capture_output=True, text=True, check=False)
    return (run.stdout or run.stderr).strip()


def copy_package(target: Path) -> None:
    shutil.copytree(
        REPOSITORY / "HSAMSegmentLib", target / "HSAMSegmentLib", ignore=shutil.ignore_patterns("__pycache__")
    )


def test_an_installed_extension_has_them_beside_the_package(tmp_path):
    modules = tmp_path / "lib" / "Slicer-5.12" / "qt-scripted-modules"
    copy_package(modules)
    shutil.copytree(REPOSITORY / "Resources", modules / "Resources")
    (modules / "Resources" / "Icons").mkdir(exist_ok=True)
    assert found_from(modules) == str(modules / "Resources")


def test_an_incomplete_installation_is_told(tmp_path):
    copy_package(tmp_path)
    assert "The installation is incomplete: Models/catalog.json is neither in" in found_from(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("setuptools") is None, reason="setuptools is not installed here")
def test_a_wheel_has_them_inside_of_the_package(tmp_path):
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if name.startswith(("HSAMSegmentLib/", "Resources/")) or "/" not in name:
            (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, tmp_path / "source" / name)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path), "."]
    subprocess.run(build, cwd=tmp_path / "source", check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    assert found_from(tmp_path / "site") == str(tmp_path / "site" / "HSAMSegmentLib" / "Resources")
    shipped = {path.name for path in (tmp_path / "site" / "HSAMSegmentLib" / "Resources" / "Models").iterdir()}
    assert shipped == {path.name for path in (tmp_path / "source" / "Resources" / "Models").iterdir()}
