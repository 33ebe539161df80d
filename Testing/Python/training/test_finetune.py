"""Fine-tuning, end to end on a small abdomen: what is learned, kept, resumed, refused."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_cases import segmentation_of, small_case, small_volume

from HSAMSegmentLib.errors import CancelledError, OutputError, RequestError, TrainingError
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.training import recipe
from HSAMSegmentLib.training.data.cases import make_case
from HSAMSegmentLib.training.finetune import finetune
from HSAMSegmentLib.training.finetune_state import FinetuneState
from HSAMSegmentLib.training.loop.budget import Budget
from HSAMSegmentLib.training.loop.checkpointer import state_path
from HSAMSegmentLib.training.loop.losses import hsam_loss
from HSAMSegmentLib.training.loop.trainer import Objective, Trainer
from HSAMSegmentLib.training.request import FinetuneRequest, FinetuneResult, ValidationMetrics, ValidationPreview
from HSAMSegmentLib.weights.bundle import read_tensors
from HSAMSegmentLib.weights.loading import load_model
from HSAMSegmentLib.weights.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def case(data_folder):
    return small_case(data_folder)


def request(folder: Path, **options) -> FinetuneRequest:
    settings = {"epochs": 2, "device": "cpu", "image_size": 64, "cache_folder": folder, **options}
    return FinetuneRequest(output=folder / "finetuned.safetensors", **settings)


class Cancelling:
    """Cancels at the n-th look at the validation after the first step."""

    def __init__(self, validations: int) -> None:
        self.cancel, self.left = CancelToken(), validations

    def __call__(self, event: object) -> None:
        if isinstance(event, ValidationMetrics) and event.step:
            self.left -= 1
            if self.left == 0:
                self.cancel.cancel()


@dataclass
class Finetuned:
    """A finished training and everything it told."""

    result: FinetuneResult
    events: list
    folder: Path


@pytest.fixture(scope="module")
def finetuned(case, tmp_path_factory, one_thread) -> Finetuned:
    """Two epochs on the small abdomen."""
    folder, events = tmp_path_factory.mktemp("finetuned"), []
    options = request(folder, report=folder / "report.json", plot=folder / "plot.png")
    return Finetuned(finetune(options, cases=[case], events=events.append), events, folder)


@pytest.mark.slow
def test_a_finetuned_model_is_a_file_that_segments(case, tmp_path):
    result = finetune(request(tmp_path, epochs=12), cases=[case])
    model = load_model(result.path)
    assert [label.name for label in model.manifest.labels] == ["liver", "right kidney"]
    found = Segmenter(model, device="cpu").segment(case.volume).segmentation
    assert found.geometry == case.volume.geometry
    liver, truth = found.array == 1, case.labels == 1
    assert 2 * (liver & truth).sum() / (liver.sum() + truth.sum()) > 0.6


def test_the_file_says_what_it_was_made_from(case, finetuned):
    manifest = load_model(finetuned.result.path).manifest
    assert manifest.training["cases"] == [{"name": case.volume.name, **case.hashes}]
    assert manifest.training["settings"]["seed"] == 0
    assert manifest.training["versions"]["torch"] == torch.__version__
    assert manifest.metrics["validation"]["on"] == "held-out slices of the same scan"
    report = json.loads((finetuned.folder / "report.json").read_text(encoding="utf-8"))
    assert report["steps"] == finetuned.result.steps
    assert report["history"][0]["loss"] is None
    assert (finetuned.folder / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert not state_path(finetuned.result.path).exists()


def test_a_finetuned_model_goes_by_its_name_once_it_is_in_the_store(finetuned, tmp_path):
    store = Store(tmp_path)
    entry = store.import_file(finetuned.result.path)
    assert entry.id == "finetuned"
    weights, found = read_tensors(finetuned.result.path), load_model("finetuned", store=store).network.state_dict()
    assert all(torch.equal(found[name].half(), weights[name].half()) for name in weights)


def test_events_tell_loss_dice_of_each_label_and_show_a_slice(finetuned):
    validations = [event for event in finetuned.events if isinstance(event, ValidationMetrics)]
    previews = [event for event in finetuned.events if isinstance(event, ValidationPreview)]
    steps = finetuned.result.steps
    assert [item.step for item in validations] == [0, steps // 2, steps], "the starting model knows both organs"
    assert all(set(item.dice) == {"liver", "right kidney"} for item in validations)
    assert np.isnan(validations[0].loss)
    assert np.isfinite(validations[-1].loss)
    assert previews[0].image.shape == previews[0].predicted.shape == previews[0].reference.shape == (64, 64)
    assert previews[0].reference.any()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(case, finetuned, tmp_path):
    weights = read_tensors(finetuned.result.path)
    again = finetune(request(tmp_path), cases=[case])
    assert all(torch.equal(tensor, weights[name]) for name, tensor in read_tensors(again.path).items())
    other = finetune(request(tmp_path, overwrite=True, seed=1, epochs=1), cases=[case])
    assert not all(torch.equal(tensor, weights[name]) for name, tensor in read_tensors(other.path).items())


@pytest.mark.parametrize("adaptation", ["full", pytest.param("frozen", marks=pytest.mark.slow)])
def test_a_resumed_training_ends_where_an_uninterrupted_one_does(case, finetuned, tmp_path, adaptation):
    options = {"epochs": 2, "adaptation": adaptation, "overwrite": True}
    whole = finetuned.result if adaptation == "full" else finetune(request(tmp_path, **options), cases=[case])
    weights = read_tensors(whole.path)
    stop = Cancelling(validations=1)
    interrupted = finetune(request(tmp_path, **options), cases=[case], events=stop, cancel=stop.cancel)
    assert interrupted.stopped == "cancelled"
    resumed = finetune(request(tmp_path, resume=True, **options), cases=[case])
    assert any("Resumed" in note for note in resumed.notes)
    assert resumed.steps > interrupted.steps
    assert all(torch.equal(tensor, weights[name]) for name, tensor in read_tensors(resumed.path).items())


@pytest.mark.parametrize("is_of_earlier_version", [False, True])
def test_a_resumed_training_keeps_its_pixels(case, tmp_path, monkeypatch, is_of_earlier_version):
    """Version 0.2.0 kept the pixels of coarse scans, and did not write their size into the state."""
    options = {"epochs": 2, "image_size": None, "overwrite": True}
    stop = Cancelling(validations=1)
    with monkeypatch.context() as patches:
        if is_of_earlier_version:
            patches.setattr(recipe, "_coarsest_spacing_mm", lambda *_arguments: math.inf)
            state_of = FinetuneState.state
            patches.setattr(
                FinetuneState,
                "state",
                lambda run: {name: value for name, value in state_of(run).items() if name != "pixel_spacing_mm"},
            )
        interrupted = finetune(request(tmp_path, **options), cases=[case], events=stop, cancel=stop.cancel)
    assert interrupted.stopped == "cancelled"
    resumed = finetune(request(tmp_path, resume=True, **options), cases=[case])
    assert any("Resumed" in note for note in resumed.notes)
    slices = load_model(resumed.path).manifest.slices
    assert slices.pixel_spacing_mm == (2.5 if is_of_earlier_version else 1.625)


def test_cancelling_keeps_a_model_that_can_be_used(case, tmp_path):
    stop = Cancelling(validations=1)
    result = finetune(request(tmp_path, epochs=50), cases=[case], events=stop, cancel=stop.cancel)
    assert result.stopped == "cancelled"
    assert load_model(result.path).network.num_classes == 2


def test_cancelling_before_anything_was_learned_leaves_no_file(case, tmp_path):
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(CancelledError):
        finetune(request(tmp_path), cases=[case], cancel=cancel)
    assert not (tmp_path / "finetuned.safetensors").exists()


def test_resuming_with_other_labels_is_refused(case, data_folder, tmp_path):
    stop = Cancelling(validations=1)
    finetune(request(tmp_path, epochs=50), cases=[case], events=stop, cancel=stop.cancel)
    volume, labels = small_volume(data_folder)
    liver = make_case(volume, segmentation_of(np.where(labels == 1, labels, 0).astype(np.uint8), volume.geometry))
    with pytest.raises(RequestError, match="other scans, labels or options"):
        finetune(request(tmp_path, epochs=50, resume=True, overwrite=True), cases=[liver])


def test_a_frozen_encoder_stays_as_it_was_and_the_head_learns(data_folder, finetuned, tmp_path):
    volume, labels = small_volume(data_folder)
    # With other names the start is not validated, so that it cannot be kept in place of what was learned.
    renamed = make_case(volume, segmentation_of(labels, volume.geometry, {1: "tumor", 2: "cyst"}))
    before = read_tensors(finetuned.result.path)
    options = {"adaptation": "frozen", "start_from": str(finetuned.result.path), "epochs": 1}
    after = read_tensors(finetune(request(tmp_path, **options), cases=[renamed]).path)
    encoder = [name for name in before if name.startswith("encoder.")]
    assert all(torch.equal(before[name], after[name]) for name in encoder)
    shared = [name for name in before if name.startswith("head.decoder1.transformer.")]
    assert any(not torch.equal(before[name], after[name]) for name in shared)


def test_a_model_with_other_labels_hands_on_what_fits(finetuned, data_folder, tmp_path):
    volume, labels = small_volume(data_folder)
    renamed = make_case(volume, segmentation_of(labels, volume.geometry, {1: "tumor", 2: "right kidney"}))
    result = finetune(request(tmp_path, epochs=1, start_from=str(finetuned.result.path)), cases=[renamed])
    sentence = next(note for note in result.notes if note.startswith("Taken from the starting model"))
    assert "right kidney" in sentence
    assert "tumor" not in sentence


def test_one_labeled_slice_and_one_class_are_enough_to_start(data_folder, tmp_path):
    volume, labels = small_volume(data_folder)
    one = np.zeros_like(labels)
    one[7] = labels[7] == 1
    result = finetune(request(tmp_path), cases=[make_case(volume, segmentation_of(one, volume.geometry))])
    assert result.validated_on == "nothing"
    assert result.dice == {}
    assert any("Too few labeled slices" in note for note in result.notes)
    assert any("sparsely" in note for note in result.notes)
    assert load_model(result.path).network.num_classes == 1


def test_given_scans_to_validate_on_are_used_instead_of_held_out_slices(case, data_folder, tmp_path):
    other = small_case(data_folder, "chaos_t2_03")
    result = finetune(request(tmp_path, epochs=1), cases=[case], validation=[other])
    assert result.validated_on == "given case"


@pytest.mark.slow
@pytest.mark.parametrize("head", ["autosam", "cnn", "linear"])
def test_every_head_can_be_finetuned(case, tmp_path, head):
    result = finetune(request(tmp_path, head=head, epochs=1, adaptation="frozen"), cases=[case])
    assert load_model(result.path).manifest.architecture.head == head


class Poisoned:
    """Batches of sound slices that are not a number from the n-th on."""

    def __init__(self, network, sound: int) -> None:
        self.network, self.left = network, sound

    def forward(self, generator: torch.Generator):
        self.left -= 1
        images = torch.rand(2, 3, 64, 64, generator=generator)
        if self.left < 0:
            images *= float("nan")
        labels = torch.ones(2, 64, 64, dtype=torch.long)
        return self.network(images, labels), labels

    def close(self) -> None: ...


def test_a_loss_that_is_no_number_any_more_leaves_the_weights_and_the_best_state_as_they_were():
    torch.manual_seed(0)
    network = build_network(Architecture(EncoderSpec("compact", 64), "hsam", 1, form="paper", options={"mlp_dim": 64}))
    trainer = Trainer(network, rate=1e-3, encoder_share=1.0, seed=0, device=torch.device("cpu"))
    objective = Objective(Poisoned(network, sound=2), lambda stages, labels: hsam_loss(stages, labels, last_weight=0.6))
    for _ in range(2):
        trainer.step([objective], 0.1)
    trainer.keep_if_best(0.5)
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    draws = trainer.generator.get_state()
    with pytest.raises(TrainingError, match="not finite"):
        trainer.step([objective], 0.1)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.named_parameters())
    assert torch.equal(draws, trainer.generator.get_state())
    assert all(bool(torch.isfinite(tensor).all()) for tensor in trainer.load_best().state_dict().values())


def test_a_loss_that_never_was_a_number_is_an_error(case, tmp_path):
    broken = replace(case, volume=replace(case.volume, array=np.full_like(case.volume.array, 0)))
    poisoned = replace(broken, volume=replace(broken.volume, array=broken.volume.array.astype(np.float32) * np.nan))
    with pytest.raises(TrainingError, match="not finite"):
        finetune(request(tmp_path, epochs=1), cases=[poisoned])
    assert not (tmp_path / "finetuned.safetensors").exists()


def test_an_existing_file_is_not_replaced_unasked(case, tmp_path):
    (tmp_path / "finetuned.safetensors").write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists"):
        finetune(request(tmp_path), cases=[case])
    assert (tmp_path / "finetuned.safetensors").read_bytes() == b"precious"


def test_adapters_without_a_sam_encoder_are_refused(case, tmp_path):
    with pytest.raises(RequestError, match="SAM"):
        finetune(request(tmp_path, lora_blocks=2), cases=[case])


def test_labels_of_the_model_are_numbered_from_one(data_folder, tmp_path):
    volume, labels = small_volume(data_folder)
    moved = np.array([0, 9, 40, 0, 0], np.uint8)[labels]
    case = make_case(volume, segmentation_of(moved, volume.geometry, {9: "liver", 40: "right kidney"}))
    manifest = load_model(finetune(request(tmp_path, epochs=1), cases=[case]).path).manifest
    assert isinstance(manifest.labels, LabelSet)
    assert [(label.value, label.name) for label in manifest.labels] == [(1, "liver"), (2, "right kidney")]


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_minutes_end_the_training_before_the_reserve_for_the_last_look():
    clock = Clock()
    budget = Budget(minutes=1.0, clock=clock)
    budget.writing_seconds = 5.0
    clock.now = 54.0
    assert not budget.is_used_up
    clock.now = 55.0
    assert budget.is_used_up
    assert budget.eta_seconds == 5.0


def test_minutes_end_the_training_where_most_of_a_slow_step_would_come_too_late():
    clock = Clock()
    budget = Budget(minutes=1.0, clock=clock)
    budget.writing_seconds = 0.0
    for seconds, last_start in ((4.0, 58.0), (30.0, 33.0)):
        budget.advance(seconds=seconds)
        clock.now = last_start - 0.1
        assert not budget.is_used_up
        clock.now = last_start
        assert budget.is_used_up


def test_minutes_of_interrupted_runs_count():
    clock = Clock()
    budget = Budget(minutes=2.0, clock=clock)
    budget.resume(seconds=90.0, steps=10)
    clock.now = 31.0
    assert budget.is_used_up


def test_minutes_and_epochs_exclude_each_other():
    with pytest.raises(RequestError, match="either"):
        Budget(minutes=1.0, epochs=1)
    with pytest.raises(RequestError, match="positive"):
        Budget(minutes=-1.0)
