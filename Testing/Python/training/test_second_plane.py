"""A second network for another plane: when it is trained, what it learns from, and that it is kept only if it helps."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_cases import segmentation_of, small_case, thin_case

from HSAMSegmentLib.images.orientation import slice_frame
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.models.interface import StageLogits
from HSAMSegmentLib.runtime.disk import DiskSpaceMonitor
from HSAMSegmentLib.runtime.progress import CancelToken, Progress
from HSAMSegmentLib.training.data.cases import UNLABELED, make_case
from HSAMSegmentLib.training.finetune import finetune, train
from HSAMSegmentLib.training.finetune_state import FinetuneState
from HSAMSegmentLib.training.loop.checkpointer import state_path
from HSAMSegmentLib.training.loop.validator import Validator
from HSAMSegmentLib.training.preparation import prepare
from HSAMSegmentLib.training.recipe import make_recipe
from HSAMSegmentLib.training.request import FinetuneRequest
from HSAMSegmentLib.training.second_plane import PlaneComparison, SecondPlane, describe_second_plane
from HSAMSegmentLib.training.training_setup import slice_bank_of
from HSAMSegmentLib.weights.bundle import read_tensors
from HSAMSegmentLib.weights.loading import load_model
from HSAMSegmentLib.workflows.finetune.cost_estimate import footprint
from HSAMSegmentLib.workflows.finetune.inspect_cases import summarize

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 64


@pytest.fixture(scope="module")
def case(data_folder):
    return thin_case(data_folder)


@pytest.fixture(scope="module")
def cases(case, data_folder):
    return [case, thin_case(data_folder, "la_0RZDK210BSMWAA6467LU")]


def request(folder: Path, **options) -> FinetuneRequest:
    settings = {"epochs": 1, "device": "cpu", "image_size": SIZE, **options}
    return FinetuneRequest(output=folder / "finetuned.safetensors", **settings)


def plane_of(cases, folder: Path, **options) -> str:
    return make_recipe(request(folder, **options), cases, None, 1).second_plane


def with_grid(case, **changes):
    return replace(case, volume=replace(case.volume, geometry=replace(case.volume.geometry, **changes)))


class CancelIn:
    """Cancels at the n-th step of the second network."""

    def __init__(self, steps: int) -> None:
        self.cancel, self.left = CancelToken(), steps

    def __call__(self, progress: Progress) -> None:
        self.left -= progress.stage == "Learning sagittal slices"
        if self.left == 0:
            self.cancel.cancel()


@pytest.fixture(scope="module")
def finetuned(cases, tmp_path_factory, one_thread):
    """Two epochs, a quarter of the steps on sagittal slices, the second network kept whatever it is worth."""
    folder = tmp_path_factory.mktemp("finetuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlaneComparison, "is_better", True)
        return finetune(request(folder, epochs=2), cases=cases)


def test_thin_slices_of_few_scans_get_a_second_network(case, data_folder, tmp_path):
    assert [plane_of([case] * scans, tmp_path) for scans in (1, 2, 5, 6)] == ["", "sagittal", "sagittal", ""]
    assert plane_of([case, small_case(data_folder)], tmp_path) == "", "one of them is thick"


@pytest.mark.parametrize(
    "options", [{"head": "linear"}, {"adaptation": "frozen"}, {"schedule": "cosine"}, {"schedule": "autosam"}]
)
def test_what_was_not_measured_gets_none(case, tmp_path, options):
    assert plane_of([case] * 2, tmp_path, **options) == ""


def test_sagittal_scans_get_axial_slices_for_their_second_network(case, tmp_path):
    turned = with_grid(case, spacing_mm=(1.0, 1.0, 1.3), direction=(0, 0, 1, 0, 1, 0, -1, 0, 0))
    assert plane_of([turned] * 2, tmp_path) == "axial"
    assert plane_of([turned, case], tmp_path) == "", "they have no other plane in common"


def test_sparse_labels_are_not_read_across(case, tmp_path):
    labels = case.labels.copy()
    labels[::2] = 0
    sparse = make_case(case.volume, segmentation_of(labels, case.volume.geometry, {1: "left atrium"}))
    assert sparse.labeled is not None
    assert plane_of([case, sparse], tmp_path) == ""


def prepared(cases, folder: Path, **options) -> FinetuneState:
    job = prepare(request(folder, **options), cases=cases)
    return job


def other_plane_of(job: FinetuneState) -> SecondPlane:
    return SecondPlane("sagittal", job.setup, job.trainer.average.network, seed=0, batch_size=4)


def test_what_is_held_out_of_one_plane_is_not_learned_along_another(case, cases, tmp_path):
    job = prepared(cases, tmp_path)
    bank = other_plane_of(job).training_set.banks[0]
    held = list(job.setup.validation_sets[0].slices)
    labels = case.labels.copy()
    slice_frame(case.volume.geometry).to_stack(labels)[held] = UNLABELED
    np.testing.assert_array_equal(
        bank.reference.numpy(), slice_frame(case.volume.geometry, "sagittal").to_stack(labels)
    )
    assert (bank.reference == UNLABELED).any(dim=(1, 2)).all()
    assert (case.labels != UNLABELED).all(), "the case itself stays as it was"
    assert (bank.labels == UNLABELED).any()


def test_the_second_network_begins_as_the_first_one(cases, tmp_path):
    job = prepared(cases, tmp_path)
    first, second = job.trainer.average.network.state_dict(), other_plane_of(job).trainer.network.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def fingerprint(image: torch.Tensor) -> int:
    return zlib.crc32(image.half().numpy().tobytes())


class Oracle(torch.nn.Module):
    """Stands for a network; answers with what it is told about each slice."""

    def __init__(self, answers: dict[int, torch.Tensor]) -> None:
        super().__init__()
        self.anchor, self.answers = torch.nn.Parameter(torch.zeros(())), answers

    def forward(self, images: torch.Tensor) -> StageLogits:
        return StageLogits((torch.stack([self.answers[fingerprint(image[1])] for image in images]),))


def oracle(banks, wrong: float) -> Oracle:
    """The true labels of the slices of banks, a part of the pixels wrong and these only hardly so."""
    generator, answers = torch.Generator().manual_seed(1), {}
    for bank in banks:
        for image, labels in zip(bank.images.flatten(0, 1), bank.labels.flatten(0, 1)):
            truth = (labels == 1).float() * 2 - 1
            is_wrong = torch.rand(truth.shape, generator=generator) < wrong
            lead = torch.where(is_wrong, -0.5 * truth, truth)
            answers[fingerprint(image)] = torch.stack([-lead, lead])
    return Oracle(answers)


@pytest.mark.parametrize(("wrong", "is_better"), [(0.0, True), (1.0, False)])
def test_both_together_are_compared_with_the_first_alone_on_held_out_voxels(cases, tmp_path, wrong, is_better):
    job = prepared(cases, tmp_path)
    other = other_plane_of(job)
    other.trainer.average.network = oracle([slice_bank_of(case, other._recipe) for case in job.setup.training], wrong)
    comparison = other.compare(oracle(job.setup.training_set.banks, 0.2), lambda: None)
    assert comparison.is_better == is_better
    assert 0.3 < comparison.alone < 0.95
    if is_better:
        assert comparison.together > 0.95


def test_a_second_network_that_does_not_help_is_left_out(cases, tmp_path, monkeypatch):
    monkeypatch.setattr(PlaneComparison, "is_better", False)
    result = finetune(request(tmp_path), cases=cases)
    model = load_model(result.path)
    assert model.manifest.architecture.planes == ()
    assert not model.network.other_planes
    assert any("was left out, since both together are no better" in note for note in result.notes)
    assert set(model.manifest.metrics["validation"]["other_plane"]) == {"name", "alone", "together"}


def test_a_model_with_two_networks_is_one_file_that_segments(case, finetuned):
    model = load_model(finetuned.path)
    assert model.manifest.architecture.planes == ("sagittal",)
    assert finetuned.steps == model.manifest.training["steps"]
    assert any(note.startswith("A second network reads sagittal slices") for note in finetuned.notes)
    state = model.network.state_dict()
    first = [name for name in state if not name.startswith("other_planes.")]
    assert any(not torch.equal(state[name], state[f"other_planes.sagittal.{name}"]) for name in first)
    found = Segmenter(model, device="cpu").segment(case.volume)
    assert found.segmentation.geometry == case.volume.geometry
    assert not any("planes" in warning for warning in found.warnings)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_two_networks_also_after_a_pause(cases, finetuned, tmp_path, monkeypatch):
    monkeypatch.setattr(PlaneComparison, "is_better", True)
    stop = CancelIn(steps=2)
    paused = finetune(request(tmp_path, epochs=2), cases=cases, progress=stop, cancel=stop.cancel)
    assert paused.stopped == "cancelled"
    assert load_model(paused.path).manifest.architecture.planes == (), "it has learned next to nothing by then"
    assert any(note.startswith("It ended before a second network") for note in paused.notes)
    needed = footprint(
        [summarize(item) for item in cases], load_model(paused.path).manifest.architecture, includes_encoder=True
    )
    assert state_path(paused.path).stat().st_size == pytest.approx(needed.state_bytes, rel=0.1)
    assert finetuned.path.stat().st_size == pytest.approx(needed.model_bytes, rel=0.1)
    resumed = finetune(request(tmp_path, epochs=2, resume=True, overwrite=True), cases=cases)
    assert f"Resumed at step {paused.steps}." in resumed.notes
    assert not state_path(resumed.path).exists()
    assert resumed.steps == finetuned.steps
    weights = read_tensors(finetuned.path)
    found = read_tensors(resumed.path)
    assert found.keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in found.items())


def test_a_cancel_is_answered_inside_of_a_slow_step_of_the_second_network(cases, tmp_path, monkeypatch):
    monkeypatch.setattr("HSAMSegmentLib.training.finetune_state._SLOW_SECONDS", -1.0)
    cancel, seen = CancelToken(), []
    job = prepare(request(tmp_path, epochs=2), cases=cases, cancel=cancel)

    def cancel_within(module, inputs) -> None:
        if job.second_plane is not None and module is job.second_plane.trainer.network.encoder:
            seen.append(job.second_plane.trainer.steps)
            cancel.cancel()

    handle = torch.nn.modules.module.register_module_forward_pre_hook(cancel_within)
    try:
        assert train(job).stopped == "cancelled"
    finally:
        handle.remove()
    assert seen == [0]
    assert job.second_plane.trainer.steps == 0, "what was interrupted is thrown away"


def test_a_model_with_two_networks_hands_on_both(cases, finetuned, tmp_path):
    job = prepared(cases, tmp_path, start_from=str(finetuned.path))
    second = other_plane_of(job).trainer.network.state_dict()
    weights = read_tensors(finetuned.path)
    assert all(torch.equal(second[name].half(), weights[f"other_planes.sagittal.{name}"]) for name in second)


def test_a_second_network_that_is_not_finetuned_on_is_not_lost_in_silence(case, cases, finetuned, tmp_path):
    def sentences(scans) -> list[str]:
        job = prepared(scans, tmp_path, start_from=str(finetuned.path))
        return [note for note in job.notes if note.startswith("The starting model also reads sagittal slices")]

    assert len(sentences([case])) == 1
    assert sentences(cases) == []


def test_without_anything_held_out_there_is_one_network(case, tmp_path):
    labels = np.zeros_like(case.labels)
    labels[12:17] = case.labels[12:17]
    short = make_case(case.volume, segmentation_of(labels, case.volume.geometry, {1: "left atrium"}))
    result = finetune(request(tmp_path), cases=[short, short])
    assert result.validated_on == "nothing"
    assert load_model(result.path).manifest.architecture.planes == ()
    assert not any("second network" in note for note in result.notes)


@pytest.mark.slow
def test_scans_to_validate_on_decide_about_the_second_network(cases, data_folder, tmp_path):
    other = thin_case(data_folder, "la_1D7CUD1955YZPGK8XHJX")
    result = finetune(request(tmp_path), cases=cases, validation=[other])
    assert result.validated_on == "given case"
    assert any("where held-out slices cross" in note for note in result.notes)


@pytest.mark.slow
def test_a_first_plane_that_ended_early_gets_a_second_one_of_a_third_of_its_length(cases, tmp_path, monkeypatch):
    monkeypatch.setattr(Validator, "has_converged", property(lambda validator: validator._trainer.steps >= 6))
    told: list[Progress] = []
    job = prepare(request(tmp_path, epochs=4), cases=cases, progress=told.append)
    assert train(job).stopped == "no more progress"
    first, second = job.trainer.steps, job.second_plane.trainer.steps
    assert 6 <= first < 0.75 * 4 * job.setup.steps_per_epoch
    assert second == pytest.approx(first / 3, abs=1)


def test_sentences_say_what_became_of_it():
    assert "0.912 instead of 0.900" in describe_second_plane("sagittal", PlaneComparison(alone=0.9, together=0.912))
    assert "left out" in describe_second_plane("sagittal", PlaneComparison(alone=0.9, together=0.9))
    assert "reads one plane" in describe_second_plane("sagittal", None)


def test_the_room_and_the_memory_of_a_second_network_are_counted(case, data_folder, tmp_path):
    thick = small_case(data_folder)
    assert summarize(case).slices_across == case.volume.geometry.size[0]
    assert summarize(thick).slices_across == 0
    architecture = make_recipe(request(tmp_path), [case], None, 1).architecture
    one, two = (footprint([summarize(item)] * 2, architecture, includes_encoder=True) for item in (thick, case))
    assert two.state_bytes / one.state_bytes == pytest.approx(7 / 5)
    assert two.model_bytes == 2 * one.model_bytes
    for scans in (1, 6):
        parts = footprint([summarize(case)] * scans, architecture, includes_encoder=True)
        assert parts.state_bytes == one.state_bytes
    rooms = [DiskSpaceMonitor(tmp_path, 1000, has_second=has_second).needed_bytes for has_second in (False, True)]
    assert rooms == [20_000, 28_000]
