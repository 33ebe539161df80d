"""Validator at a training: all on the same slices, and what is kept is never worse than what it started from."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from small_cases import small_case
from stored_models import encoder_file

from HSAMSegmentLib.errors import CancelledError
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.training.finetune import finetune, train
from HSAMSegmentLib.training.finetune_state import FinetuneState
from HSAMSegmentLib.training.loop.budget import BudgetedEncoding
from HSAMSegmentLib.training.preparation import prepare
from HSAMSegmentLib.training.request import FinetuneRequest, ValidationMetrics
from HSAMSegmentLib.weights.bundle import read_tensors
from HSAMSegmentLib.weights.loading import load_model
from HSAMSegmentLib.weights.store import HOME_VARIABLE, Store


@pytest.fixture(scope="module")
def case(data_folder):
    return small_case(data_folder)


def request(folder: Path, **options) -> FinetuneRequest:
    settings = {"epochs": 2, "device": "cpu", "image_size": 64, "cache_folder": folder, **options}
    return FinetuneRequest(output=folder / "finetuned.safetensors", **settings)


class Slices:
    """Writes down which slices each look of a job was taken on."""

    def __init__(self, cancel_at: int = -1) -> None:
        self.job: FinetuneState | None = None
        self.cancel, self._cancel_at = CancelToken(), cancel_at
        self.steps, self.slices = [], []

    def __call__(self, event: object) -> None:
        if isinstance(event, ValidationMetrics):
            self.steps.append(event.step)
            self.slices.append([item.slices for item in self.job.validator.sets])
            if len(self.steps) == self._cancel_at:
                self.cancel.cancel()


def prepared(options: FinetuneRequest, case, log: Slices) -> FinetuneState:
    log.job = prepare(options, cases=[case], events=log, cancel=log.cancel)
    return log.job


def test_a_finetuning_that_makes_it_worse_keeps_what_it_started_from_and_says_so(real_data_folder, tmp_path):
    case = small_case(real_data_folder)
    job = prepared(request(tmp_path, epochs=1, rate=0.3, image_size=128), case, log := Slices())
    start = {name: tensor.detach().half() for name, tensor in job.trainer.network.state_dict().items()}
    start = {name: tensor.clone() for name, tensor in start.items()}
    result = train(job)
    assert log.steps[0] == 0
    assert result.steps > 0
    assert result.history[-1].mean_dice < result.history[0].mean_dice
    assert result.dice == result.history[0].dice
    kept = read_tensors(result.path)
    assert all(torch.equal(kept[name].half(), start[name]) for name in kept)
    assert any("did not get better" in note for note in result.notes)
    assert load_model(result.path).manifest.training["kept_step"] == 0


def test_a_start_that_knows_none_of_the_organs_is_not_judged(case, tmp_path):
    result = finetune(request(tmp_path, epochs=1, start_from="scratch"), cases=[case])
    assert result.history[0].step > 0
    assert not any("did not get better" in note for note in result.notes)


def test_a_cancel_before_the_first_step_leaves_no_model_that_learned_nothing(case, tmp_path):
    job = prepared(request(tmp_path), case, Slices(cancel_at=1))
    with pytest.raises(CancelledError):
        train(job)
    assert not (tmp_path / "finetuned.safetensors").exists()


@pytest.mark.slow
def test_on_a_slow_computer_all_looks_are_taken_on_the_same_few_slices(case, tmp_path):
    job = prepared(request(tmp_path, epochs=None, minutes=0.15), case, log := Slices())
    for network in (job.trainer.network, job.trainer.average.network):
        network.encoder.register_forward_pre_hook(lambda module, inputs: time.sleep(0.8 * len(inputs[0])))
    result = train(job)
    assert log.steps[0] == 0
    assert len(log.steps) > 1
    assert log.slices[0] == log.slices[-1] == [job.setup.validation_sets[0].slices[1:]]
    assert any("a part of the held-out slices" in sentence for sentence in result.advice)
    assert max(look.mean_dice for look in result.history) == sum(result.dice.values()) / len(result.dice)


@pytest.mark.parametrize(("before", "after"), [(1.0, float("inf")), (float("inf"), 1.0)])
def test_a_resumed_training_is_judged_on_the_slices_that_it_was_judged_on_before(
    case, parity_folder, tmp_path, monkeypatch, before, after
):
    """The computer was slower or faster then, so that more or fewer slices would be taken now."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    Store().import_file(encoder_file(parity_folder, tmp_path), model_id="small-sam")
    options = {"encoder": "small-sam", "head": "linear"}
    monkeypatch.setattr(BudgetedEncoding, "validation_inputs", lambda pace, seconds: before)
    train(prepared(request(tmp_path, **options), case, first := Slices(cancel_at=1)))
    monkeypatch.setattr(BudgetedEncoding, "validation_inputs", lambda pace, seconds: after)
    options = request(tmp_path, resume=True, overwrite=True, **options)
    train(prepared(options, case, second := Slices()))
    assert second.steps
    assert first.slices[0] == second.slices[-1]
    assert sum(map(len, first.slices[0])) == (1 if before == 1.0 else 2)
