"""`hsam-segment evaluate`: two segmentations in, a table and numbers out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from program_environment import one_line, two_organs, write_labels

from HSAMSegmentLib.images.geometry import Geometry

pytest_plugins = ("program_fixtures",)


def test_evaluate_prints_a_table_and_writes_json(program):
    array = two_organs()
    prediction = write_labels(program.folder / "prediction.seg.nrrd", array, {1: "liver", 2: "spleen"})
    moved = np.roll(array, 1, axis=2)
    reference = write_labels(program.folder / "reference.seg.nrrd", moved, {1: "liver", 2: "spleen"})
    done = program("evaluate", prediction, reference, "--json", "numbers.json")
    assert done.returncode == 0, done.stderr
    assert "HD95 mm" in done.stdout
    data = json.loads((program.folder / "numbers.json").read_text())
    scores = {item["name"]: item for item in data["structures"]}
    assert scores["liver"]["dice"] == pytest.approx(0.75)
    assert scores["spleen"]["dice"] == pytest.approx(0.75)
    assert f"{scores['liver']['hd95']:.2f}" in done.stdout
    assert data["unit"] == "mm"


def test_evaluate_gives_the_papers_numbers_if_asked_for(program):
    array = two_organs()
    prediction = write_labels(program.folder / "p.nii.gz", array)
    reference = write_labels(program.folder / "r.nii.gz", np.where(array == 1, 1, 0))
    ours = program("evaluate", prediction, reference, "--json", "ours.json")
    papers = program("evaluate", prediction, reference, "--convention", "hsam", "--json", "papers.json")
    assert ours.returncode == papers.returncode == 0
    assert "false alarm" in ours.stdout
    assert json.loads((program.folder / "ours.json").read_text())["mean"]["dice"] == 0.5
    assert json.loads((program.folder / "papers.json").read_text())["mean"]["dice"] == 1.0


def test_evaluate_names_the_values_of_label_maps(program):
    array = two_organs()
    prediction = write_labels(program.folder / "p.seg.nrrd", array, {1: "spleen", 2: "liver"})
    reference = write_labels(program.folder / "r.nii.gz", array)
    done = program("evaluate", prediction, reference, "--names", "1=spleen,2=liver", "--organs", "liver")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["structure", "liver", "mean"]


@pytest.mark.parametrize(
    ("prediction", "code", "part"),
    [("none.nii.gz", 3, "none.nii.gz"), ("text.nii.gz", 3, "text.nii.gz"), ("elsewhere.nii.gz", 3, "overlap")],
)
def test_evaluate_refuses_what_it_cannot_compare(program, prediction, code, part):
    (program.folder / "text.nii.gz").write_text("this is not an image")
    far = Geometry(size=(12, 10, 6), origin_mm=(900.0, 0.0, 0.0))
    write_labels(program.folder / "elsewhere.nii.gz", two_organs(), geometry=far)
    write_labels(program.folder / "r.nii.gz", two_organs())
    done = program("evaluate", prediction, "r.nii.gz")
    assert done.returncode == code
    assert part in one_line(done)


def test_nothing_is_overwritten_unless_told(program):
    array = two_organs()
    for name in ("p.nii.gz", "r.nii.gz"):
        write_labels(program.folder / name, array)
    (program.folder / "numbers.json").write_text("mine")
    done = program("evaluate", "p.nii.gz", "r.nii.gz", "--json", "numbers.json")
    assert done.returncode == 8
    assert "numbers.json" in one_line(done)
    assert (program.folder / "numbers.json").read_text() == "mine"
    assert program("evaluate", "p.nii.gz", "r.nii.gz", "--json", "numbers.json", "--overwrite").returncode == 0
    assert json.loads((program.folder / "numbers.json").read_text())["mean"]["dice"] == 1.0
