"""How a Slicer release gets to a test machine: by name, checked by hash; and the workflow that does it."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from conftest import REPOSITORY

WORKFLOW = REPOSITORY / ".github" / "workflows" / "slicer.yml"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("fetch_slicer", REPOSITORY / "Scripts" / "fetch_slicer.py")
    module = importlib.util.module_from_spec(spec)
    __import__("sys").modules["fetch_slicer"] = module
    spec.loader.exec_module(module)
    return module


def write_archive(path: Path, *names: str) -> str:
    """A small archive with these files; returns its hash."""
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"run"))
    return hashlib.sha512(path.read_bytes()).hexdigest()


def test_an_archive_with_the_stated_hash_is_unpacked(script, tmp_path):
    sha512 = write_archive(tmp_path / "source.tar.gz", "Slicer-1.0/Slicer", "Slicer-1.0/bin/PythonSlicer")
    archive = script.fetch((tmp_path / "source.tar.gz").as_uri(), tmp_path / "got" / "slicer.tar.gz", sha512)
    program = script.unpack(archive, tmp_path / "slicer")
    assert program == tmp_path / "slicer" / "Slicer-1.0" / "Slicer"


def test_an_archive_with_another_hash_is_not_used(script, tmp_path):
    write_archive(tmp_path / "source.tar.gz", "Slicer-1.0/Slicer")
    target = tmp_path / "slicer.tar.gz"
    with pytest.raises(SystemExit, match="It was not used"):
        script.fetch((tmp_path / "source.tar.gz").as_uri(), target, "0" * 128)
    assert not target.exists()


def test_an_archive_without_slicer_is_refused(script, tmp_path):
    write_archive(tmp_path / "source.tar.gz", "something/else")
    with pytest.raises(SystemExit, match="holds no program"):
        script.unpack(tmp_path / "source.tar.gz", tmp_path / "slicer")


def test_the_newest_release_and_its_hash_are_read_from_what_the_servers_say(script):
    item = "0123456789abcdef01234567"
    assert script.newest_item(f'<a href="/bitstream/{item}">5.12.4</a> <a href="/bitstream/{"f" * 24}">') == item
    assert script.stated_hash([{"sha512": "abc", "name": "Slicer.tar.gz"}]) == "abc"
    with pytest.raises(SystemExit, match="names no release"):
        script.newest_item("<html>")
    with pytest.raises(SystemExit, match="states no hash"):
        script.stated_hash([{"name": "Slicer.tar.gz"}])
    with pytest.raises(SystemExit, match="is not known"):
        script.resolved("4.0")


def test_known_releases_have_whole_ids_and_hashes(script):
    for release in script.RELEASES.values():
        assert re.fullmatch(r"[0-9a-f]{24}", release.item)
        assert re.fullmatch(r"([0-9a-f]{128})?", release.sha512)


def test_the_workflow_runs_scripts_that_are_here_on_every_version(script):
    text = WORKFLOW.read_text(encoding="utf-8")
    versions = re.search(r"version: \[(.*)\]", text)[1]
    assert [item.strip().strip('"') for item in versions.split(",")] == [*script.RELEASES, script.NEWEST]
    for name in re.findall(r"Scripts/\w+\.py", text):
        assert (REPOSITORY / name).is_file()


def test_the_shell_steps_of_the_workflow_are_readable_for_a_shell():
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("bash is not installed")
    text = WORKFLOW.read_text(encoding="utf-8")
    blocks = re.findall(r"run: \|\n((?: {10}.*\n)+)", text)
    assert len(blocks) == 5
    for block in blocks:
        plain = re.sub(r"\$\{\{.*?\}\}", "value", block)
        done = subprocess.run([shell, "-n"], input=plain, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
