"""Suggestions of scans to label next: on phantoms, on scans of patients, and the choice itself on plain numbers."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import SimpleITK as sitk
from small_models import write_bundle

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.sitk_images import image_of
from HSAMSegmentLib.phantom import abdomen_phantom, phantom_geometry
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.suggest.suggest_request import SuggestRequest
from HSAMSegmentLib.workflows.suggest.suggest_scans import choose, run

pytest_plugins = ("program_fixtures",)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with random weights: what it is uncertain of means nothing, but it has features."""
    return str(write_bundle(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Five phantoms of one kind, and one whose gray values are turned upside down."""
    folder = tmp_path_factory.mktemp("cohort")
    for seed in range(6):
        volume, _ = abdomen_phantom(seed=seed, geometry=phantom_geometry((96, 96, 8), (3.4, 3.4, 35.0)))
        array = volume.array if seed != 3 else (volume.array.max() - volume.array)
        name = "unlike" if seed == 3 else f"alike_{seed}"
        sitk.WriteImage(image_of(array.astype(np.int16), volume.geometry), str(folder / f"{name}.nii.gz"))
    (folder / "broken.nii.gz").write_bytes(b"\x1f\x8b no scan")
    return folder


def test_a_scan_unlike_the_others_comes_first(cohort, model):
    found = run(SuggestRequest(str(cohort), 3, model, "cpu"), Context())
    assert found.looked_at == 6
    assert [item.rank for item in found.scans] == [1, 2, 3]
    first = found.scans[0]
    assert first.name == "unlike"
    assert first.novelty == 1.0
    assert "It looks unlike" in first.reasons[0]
    assert len({item.name for item in found.scans}) == 3
    assert all(0.0 < item.entropy < 1.0 for item in found.scans)
    assert [name for name, _ in found.failed] == ["broken"]


def test_what_is_labeled_already_is_not_suggested_and_its_like_is_not_new(cohort, model):
    labeled = (str(cohort / "unlike.nii.gz"),)
    found = run(SuggestRequest(str(cohort), 10, model, "cpu", labeled), Context())
    assert "unlike" not in [item.name for item in found.scans]
    assert len(found.scans) == 5
    # All others are new to somebody who has labeled only the odd one.
    assert found.scans[0].novelty > 0.8
    with_both = (*labeled, str(cohort / "alike_0.nii.gz"))
    found = run(SuggestRequest(str(cohort), 1, model, "cpu", with_both), Context())
    assert found.scans[0].name.startswith("alike_")


@pytest.mark.slow
def test_among_scans_of_patients_the_one_of_another_kind_comes_first(real_data_folder, tmp_path):
    for name in ("02", "20", "34"):
        scan = real_data_folder / "chaos_t2" / "images" / f"chaos_t2_{name}.nii.gz"
        (tmp_path / scan.name).symlink_to(scan)
    odd = next((real_data_folder / "la_lge" / "images").glob("*.nii.gz"))
    (tmp_path / odd.name).symlink_to(odd)
    found = run(SuggestRequest(str(tmp_path), 4, "abdomen-mr", "cpu"), Context())
    assert found.scans[0].name == odd.name[: -len(".nii.gz")]
    assert found.scans[0].reasons


def test_nothing_to_look_at_and_a_wrong_number_are_sentences(tmp_path, cohort, model):
    (tmp_path / "broken.nii.gz").write_bytes(b"\x1f\x8b no scan")
    with pytest.raises(RequestError, match="could be looked at"):
        run(SuggestRequest(str(tmp_path), 1, model, "cpu"), Context())
    with pytest.raises(RequestError, match="1 or more"):
        run(SuggestRequest(str(cohort), 0, model, "cpu"), Context())


def test_uncertainty_decides_between_scans_that_are_equally_new():
    features = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    chosen = choose(features, np.array([0.1, 0.4, 0.2, 0.3]), 4)
    assert chosen[0].index == 1
    assert chosen[0].uncertainty == 1.0


def test_a_twin_of_a_chosen_scan_waits():
    features = np.array([[10.0, 0.0], [10.0, 0.1], [0.0, 0.0], [0.0, 5.0], [1.0, 0.0]])
    chosen = [item.index for item in choose(features, np.full(5, 0.5), 3)]
    assert len({0, 1} & set(chosen)) == 1


def test_equal_scans_are_all_ranked_once():
    chosen = choose(np.zeros((4, 3)), np.zeros(4), 10)
    assert sorted(item.index for item in chosen) == [0, 1, 2, 3]
    assert choose(np.zeros((0, 3)), np.zeros(0), 3) == []


@pytest.mark.slow
def test_the_program_prints_reasons_and_writes_json_and_csv(program, cohort, model):
    done = program("finetune", "--suggest", "2", cohort, "--start-from", model, "--device", "cpu", "--report", "a.json")
    assert done.returncode == 0, done.stderr
    assert "1. unlike: It looks unlike" in done.stdout
    assert "broken was left out" in done.stderr
    data = json.loads((program.folder / "a.json").read_text())
    assert data["scans"][0]["name"] == "unlike"
    done = program("finetune", "--suggest", "2", cohort, "--start-from", model, "--device", "cpu", "--report", "a.csv")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((program.folder / "a.csv").open()))
    assert rows[0]["scan"] == "unlike"
    assert rows[0]["rank"] == "1"
    assert program("finetune", "--suggest", "two", cohort).returncode == 2
    assert program("finetune", "--suggest", "2", cohort, "--report", "a.txt").returncode == 2


def test_training_still_asks_for_its_cases(program):
    done = program("finetune", "-o", "model.safetensors")
    assert done.returncode == 2
    assert "arguments are required: --case" in done.stderr
