"""`hsam-segment doctor`: what it looks at, and the self-test that segments a synthetic scan."""

from __future__ import annotations

import json

import pytest

from HSAMSegmentLib.cli.main import main
from HSAMSegmentLib.errors import DeviceError
from HSAMSegmentLib.weights.resources import builtin_models_folder
from HSAMSegmentLib.workflows import self_test


def checks_of(capsys, *options: str) -> tuple[int, dict[str, dict]]:
    code = main(["doctor", "--json", *options])
    return code, {check["name"]: check for check in json.loads(capsys.readouterr().out)}


def test_it_names_the_interpreter_and_measures_the_disk(capsys):
    _, checks = checks_of(capsys)
    assert checks["interpreter"]["ok"]
    assert not checks["interpreter"]["finding"].endswith("of 3D Slicer."), "slicer-core alone is no Slicer"
    assert "MB/s" in checks["disk speed"]["finding"]
    assert "self-test" not in checks


def test_the_self_test_finds_on_this_computer_what_was_recorded(capsys):
    code, checks = checks_of(capsys, "--self-test")
    assert code == 0
    assert checks["self-test"]["ok"], checks["self-test"]["finding"]


@pytest.mark.slow
def test_another_result_than_the_recorded_one_fails_and_says_what_to_do(capsys, monkeypatch, tmp_path):
    record = json.loads((builtin_models_folder() / self_test.RECORD_FILE).read_text(encoding="utf-8"))
    record["dice"]["liver"] -= 0.2
    (tmp_path / self_test.RECORD_FILE).write_text(json.dumps(record), encoding="utf-8")
    monkeypatch.setattr(self_test, "builtin_models_folder", lambda: tmp_path)
    code, checks = checks_of(capsys, "--self-test")
    assert code == DeviceError.exit_code
    assert "differs by at most 0.2" in checks["self-test"]["finding"]
    assert "another device" in checks["self-test"]["advice"]


def test_an_incomplete_installation_is_said(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(self_test, "builtin_models_folder", lambda: tmp_path)
    with pytest.raises(self_test.HSAMSegmentError, match="installation is incomplete"):
        self_test._recorded("abdomen-mr")
