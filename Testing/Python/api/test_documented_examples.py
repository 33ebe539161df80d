"""The Python of `Docs/api.md`, of the README and of the notebook runs as it stands, on the CT scan of the tests."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from conftest import REPOSITORY

DATA = REPOSITORY / "Testing" / "Data" / "ct_totalsegmentator"
NOTEBOOK = REPOSITORY / "Docs" / "notebooks" / "first_steps.ipynb"


def blocks(page: str) -> list[str]:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def files(tmp_path, monkeypatch, one_thread):
    """A folder with the files that the examples name."""
    shutil.copy(DATA / "images" / "ct_example_30.nii.gz", tmp_path / "ct.nii.gz")
    shutil.copy(DATA / "labels" / "ct_example_30.nii.gz", tmp_path / "labels.nii.gz")
    shutil.copy(DATA / "labels" / "ct_example_30.nii.gz", tmp_path / "reference.nii.gz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_examples_of_the_api_page_run(files, capsys):
    names = {}
    for block in blocks("Docs/api.md"):
        exec(compile(block.replace("minutes=10", "epochs=1"), "Docs/api.md", "exec"), names)
    assert names["result"]["liver"].volume_ml > 100
    assert names["evaluation"]["right kidney"].dice > 0.8
    assert list(names["table"].loc["right kidney"].index[:2]) == ["state", "dice"]
    assert set(names["model"].metrics) == {label.name for label in names["model"].labels}
    assert (files / "mine.safetensors").is_file()
    assert (files / "organs.seg.nrrd").is_file()
    assert "100% Done" in capsys.readouterr().out


@pytest.mark.slow
def test_the_first_example_of_the_readme_runs(files):
    names = {}
    exec(compile(blocks("README.md")[0].replace("minutes=10", "epochs=1"), "README.md", "exec"), names)
    assert names["result"].found
    assert (files / "organs.seg.nrrd").is_file()


@pytest.mark.slow
def test_the_notebook_runs_from_its_folder(monkeypatch, one_thread):
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["language"]) == (4, "python")
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    monkeypatch.chdir(NOTEBOOK.parent)
    names = {}
    for number, cell in enumerate(cells, start=1):
        exec(compile(cell, f"cell {number}", "exec"), names)
    assert names["evaluation"].mean() > 0.5
    assert names["model"].steps > 0
    assert names["again"].model_title.startswith("Fine-tuned")
