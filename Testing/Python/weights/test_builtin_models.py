"""The models that come with the program: they load, say what they are, and segment as well as they claim."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from HSAMSegmentLib.errors import TrainingError
from HSAMSegmentLib.evaluation.metrics import compare
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.runtime.disk import sha256_of
from HSAMSegmentLib.training.loop.checkpointer import save_state
from HSAMSegmentLib.weights.bundle import read_manifest
from HSAMSegmentLib.weights.catalog import MOVED_ENCODERS
from HSAMSegmentLib.weights.loading import load_model, save_model
from HSAMSegmentLib.weights.manifest import EncoderSource
from HSAMSegmentLib.weights.resources import builtin_models_folder
from HSAMSegmentLib.weights.store import Store
from recipes.builtin_tasks import ATRIUM, HEART, SHIPPED_TASKS, TASKS, dataset_cases
from recipes.export_builtin import export
from recipes.task_data import dataset_case
from recipes.train_builtin import build_networks

TOLERANCE = 0.005
MOST_BYTES = 40e6
TASK_OF_ID = {task.id: task for task in SHIPPED_TASKS}


def bundle(task_id: str) -> Path:
    path = builtin_models_folder() / f"{task_id}.safetensors"
    if not path.is_file():
        pytest.skip(f"{path.name} is not trained yet")
    return path


@pytest.fixture(params=[task.id for task in SHIPPED_TASKS])
def task(request):
    return TASK_OF_ID[request.param]


def test_all_of_them_are_small_enough_for_the_repository():
    sizes = [path.stat().st_size for path in builtin_models_folder().glob("*.safetensors")]
    assert sum(sizes) <= MOST_BYTES


def test_each_says_what_it_finds_and_on_which_terms(task):
    manifest = read_manifest(bundle(task.id))
    assert tuple(label.name for label in manifest.labels) == task.labels
    assert all(label.terminology is not None for label in manifest.labels)
    assert manifest.license.research_only
    assert "non-commercial" in manifest.license.terms
    assert manifest.citation


def test_no_scan_that_it_was_judged_on_was_finetuned(task):
    manifest = read_manifest(bundle(task.id))
    judged, training = manifest.metrics.values(), manifest.training
    scans = {scan for metrics in judged for scan in metrics["scans"]}
    assert scans == set(training["scans_held_out"]) == set(task.validation)
    assert not set(training["scans_taught"]) & scans


def test_a_state_that_has_learned_from_the_held_out_scans_is_not_judged_on_them(tmp_path):
    networks = build_networks()
    finetuned = {task.id: list(task.validation) for task in TASKS}
    save_state(tmp_path / "state", {"average": networks.state_dict(), "taught": finetuned, "steps": 1, "seconds": 1.0})
    with pytest.raises(TrainingError, match="trained on validation scans"):
        export(tmp_path / "state", tmp_path, tmp_path / "models")


def test_each_states_dice_and_surface_distance_of_every_structure(task):
    structures = read_manifest(bundle(task.id)).metrics["validation"]["structures"]
    assert set(structures) == set(task.labels)
    for row in structures.values():
        assert 0.0 <= row["lowest_dice"] <= row["dice"] <= 1.0
        assert row["dice"] > 0.0
        assert row["hd95_mm"] > 0.0


def test_both_heart_models_share_one_encoder():
    holder, user = (read_manifest(bundle(task.id)).encoder_source for task in (HEART, ATRIUM))
    assert holder.included
    assert (user.model_id, user.sha256) == (HEART.id, sha256_of(bundle(HEART.id)))


def test_each_knows_the_ranges_of_its_training_scans(task):
    ranges = read_manifest(bundle(task.id)).training_ranges
    assert set(ranges) == set(task.labels)
    assert all(0.0 < item.confidence <= 1.0 for item in ranges.values())


def test_the_model_of_an_earlier_version_is_found_under_its_old_name(tmp_path):
    assert Store(tmp_path).find("abdomen-mr-t2").id == "abdomen-mr"
    assert load_model("abdomen-mr-t2", store=Store(tmp_path)).manifest.id == "abdomen-mr"


def test_a_model_made_with_the_encoder_of_an_earlier_bundle_finds_it(tmp_path):
    atrium = load_model(bundle(ATRIUM.id))
    ((earlier, _),) = MOVED_ENCODERS.items()
    manifest = replace(atrium.manifest, id="mine", encoder_source=EncoderSource(False, "abdomen-mr-t2", earlier))
    store = Store(tmp_path)
    save_model(tmp_path / "models" / "mine.safetensors", atrium.network, manifest, dtype="float16")
    assert store.requirements("mine") == []
    found = load_model("mine", store=store).network.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in atrium.network.state_dict().items())


@pytest.mark.slow
def test_each_segments_a_scan_at_least_as_well_as_it_states(task, real_data_folder):
    model = load_model(bundle(task.id))
    stated = model.manifest.metrics["validation"]["dice_per_scan"]
    name = min(stated)
    entry = next(item for item in dataset_cases(real_data_folder / task.folder) if item.id == name)
    case = dataset_case(entry, task)
    found = Segmenter(model, device="cpu", options=SegmentOptions(threads=2)).segment(case.volume).segmentation
    truth = Segmentation(case.labels, case.volume.geometry, model.manifest.labels, name)
    dice = [score.dice for score in compare(found, truth).scores]
    assert np.all(np.asarray(dice) >= np.asarray(stated[name]) - TOLERANCE), json.dumps(dice)
