"""`hsam-segment models` and `hsam-segment doctor`: what is there, what is missing, and what to do about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from program_environment import one_line

pytest_plugins = ("program_fixtures",)


def import_orphan(program):
    """Store a model whose encoder is neither here nor in the catalog."""
    import torch
    from small_models import manifest

    from HSAMSegmentLib.weights.bundle import save_bundle
    from HSAMSegmentLib.weights.manifest import EncoderSource

    description = manifest(id="orphan", encoder_source=EncoderSource(included=False, model_id="gone"))
    path = save_bundle(program.folder / "orphan.safetensors", {"head.weight": torch.ones(3)}, description)
    done = program("models", "import", path)
    assert done.returncode == 0, done.stderr
    assert "needs the encoder 'gone'" in done.stderr


def test_models_lists_what_the_catalog_knows(program):
    done = program("models")
    assert done.returncode == 0
    assert "sam_vit_b" in done.stdout
    listed = json.loads(program("models", "list", "--json").stdout)
    assert {"id", "license", "status", "size_bytes"} <= set(listed[0])
    assert "sam_vit_b" in [item["id"] for item in listed]


def test_models_shows_size_and_license(program):
    done = program("models", "show", "sam_vit_b")
    assert "375.0 MB" in done.stdout
    assert "Apache-2.0" in done.stdout
    assert json.loads(program("models", "show", "sam_vit_b", "--json").stdout)["license"]["name"] == "Apache-2.0"


def test_an_unknown_model_is_answered_with_similar_ids(program):
    done = program("models", "show", "sam_vit_c")
    assert done.returncode == 5
    assert "sam_vit_b" in one_line(done)


def test_a_model_whose_encoder_nobody_knows_is_named_wherever_models_are_listed(program):
    import_orphan(program)
    assert "orphan: Brightness needs the encoder 'gone', which is unknown here" in program("models").stderr
    assert "problem:   Brightness needs the encoder 'gone'" in program("models", "show", "orphan").stdout
    download = program("models", "download", "orphan", "--yes")
    assert download.returncode == 5
    assert "'gone'" in one_line(download)


def test_a_download_needs_a_yes_and_shows_the_license_before(program, home):
    done = program("models", "download", "sam_vit_b")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert "Apache-2.0" in done.stderr
    assert "375.0 MB" in done.stderr
    assert not home.exists()


@pytest.mark.slow
def test_a_model_is_imported_used_by_its_name_exported_and_removed(program, model_file, home):
    done = program("models", "import", model_file)
    assert done.returncode == 0, done.stderr
    assert "brightness" in done.stdout
    entry = next(item for item in json.loads(program("models", "--json").stdout) if item["id"] == "brightness")
    assert entry["status"] == "stored"
    assert program("models", "export", "brightness", "copy.safetensors").returncode == 0
    assert (program.folder / "copy.safetensors").read_bytes() == model_file.read_bytes()
    assert program("models", "export", "brightness", "copy.safetensors").returncode == 8
    assert program("models", "remove", "brightness").returncode == 0
    assert program("models", "show", "brightness").returncode == 5
    assert program("models", "remove", "brightness").returncode == 5


def test_a_file_that_is_no_model_is_not_imported(program, home):
    (program.folder / "notes.safetensors").write_text("this is not a model")
    done = program("models", "import", "notes.safetensors")
    assert done.returncode == 4
    assert "notes.safetensors" in one_line(done)
    assert not list(home.rglob("*.safetensors"))


@pytest.mark.slow
def test_the_doctor_runs_the_devices_and_reports_as_json(program):
    done = program("doctor", "--json")
    checks = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    names = [check["name"] for check in checks]
    assert {"program", "packages", "memory", "models", "torch", "device cpu"} <= set(names)
    assert next(check for check in checks if check["name"] == "device cpu")["ok"]
    assert all(check["ok"] or check["advice"] for check in checks if not check["name"].startswith("device"))


@pytest.mark.slow
def test_the_doctor_says_why_the_precision_is_what_it_is_and_names_a_misspelled_setting(program, monkeypatch):
    def precision():
        checks = json.loads(program("doctor", "--json").stdout)
        return next(check for check in checks if check["name"] == "precision cpu")

    monkeypatch.setenv("HSAMSEGMENT_PRECISION", "float32")
    assert precision()["finding"] == "float32: HSAMSEGMENT_PRECISION asks for it."
    monkeypatch.setenv("HSAMSEGMENT_PRECISION", "flat32")
    found = precision()
    assert not found["ok"]
    assert "'flat32', which is unknown" in found["finding"]


def test_the_doctor_counts_a_model_without_its_encoder_as_missing(program):
    import_orphan(program)
    checks = {check["name"]: check for check in json.loads(program("doctor", "--json").stdout)}
    assert "orphan" not in checks["models"]["finding"]
    assert not checks["model orphan"]["ok"]
    assert "needs the encoder 'gone'" in checks["model orphan"]["advice"]


@pytest.mark.parametrize(("usable", "code"), [(True, 0), (False, 5)])
def test_the_doctors_exit_code_tells_whether_a_model_is_ready_to_use(tmp_path, monkeypatch, capsys, usable, code):
    from HSAMSegmentLib.cli.main import main
    from HSAMSegmentLib.weights import store

    monkeypatch.setenv("HSAMSEGMENT_HOME", str(tmp_path / "store"))
    if not usable:
        monkeypatch.setattr(store, "builtin_models_folder", lambda: tmp_path / "nothing")
    assert main(["doctor"]) == code
    assert ("models: none ready to use" in capsys.readouterr().out) == (not usable)


@pytest.mark.slow
def test_the_doctor_says_what_to_do_without_torch(program, tmp_path):
    broken = tmp_path / "broken" / "torch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('a library is missing')")
    environ = {**os.environ, "PYTHONPATH": f"{broken.parent}{os.pathsep}{REPOSITORY}"}
    done = subprocess.run(
        [sys.executable, "-m", "HSAMSegmentLib", "doctor"], capture_output=True, text=True, env=environ, check=False
    )
    assert done.returncode == 7
    line = next(line for line in done.stdout.splitlines() if "torch: " in line)
    assert line.startswith("warn")
    assert "a library is missing" in line
    assert "pip install" in line
