"""Scans without labels in a teaching: labelled halfway by the network, drawn like others, the same after a stop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_cases import small_case, small_volume

from HSAMSegmentLib.checkpoints.bundle import read_manifest, read_tensors
from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.progress import CancelToken
from HSAMSegmentLib.training.losses import UNLABELLED
from HSAMSegmentLib.training.request import TeachMetrics, TeachRequest
from HSAMSegmentLib.training.sampling import BalancedSampler, MixedSampler
from HSAMSegmentLib.training.self_training import SURE, SelfTraining
from HSAMSegmentLib.training.teach import TeachJob, ignore_events, teach


@pytest.fixture(scope="module")
def case(data_folder):
    return small_case(data_folder)


@pytest.fixture(scope="module")
def other(data_folder):
    """A scan of somebody else, without labels."""
    return small_volume(data_folder, "chaos_t2_03")[0]


def request(folder: Path, **options) -> TeachRequest:
    settings = {"epochs": 4, "device": "cpu", "image_size": 64, "cache_folder": folder, **options}
    return TeachRequest(output=folder / "taught.safetensors", **settings)


class CancelAtStep:
    """Cancels at the first look at or after a step."""

    def __init__(self, step: int) -> None:
        self.cancel, self.step = CancelToken(), step

    def __call__(self, event: object) -> None:
        if isinstance(event, TeachMetrics) and event.step >= self.step:
            self.cancel.cancel()


def prepared(folder: Path, case, other) -> TeachJob:
    job = TeachJob(request(folder), lambda progress: None, ignore_events, CancelToken())
    job.prepare([case], None, [other])
    return job


def test_the_result_says_which_scans_the_network_labelled_itself(case, other, tmp_path):
    result = teach(request(tmp_path), cases=[case], unlabeled=[other])
    said = [note for note in result.notes if "labelled all slices of 1 scan(s) itself" in note]
    assert len(said) == 1
    assert said[0].startswith(f"After {result.steps // 2} steps")
    facts = read_manifest(result.path).training["unlabeled"]
    assert [set(item) for item in facts] == [{"name", "volume"}]
    assert facts[0]["name"] == other.name
    assert json.dumps(facts[0]["volume"]) not in json.dumps(read_manifest(result.path).training["cases"])


@pytest.mark.parametrize(
    "step",
    [pytest.param(2, id="before the scans are labelled", marks=pytest.mark.slow), pytest.param(9, id="after it")],
)
def test_a_stopped_training_ends_with_the_same_weights_as_one_that_was_not(case, other, tmp_path, step):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    expected = read_tensors(teach(request(whole), cases=[case], unlabeled=[other]).path)
    events = CancelAtStep(step)
    early = teach(request(stopped), cases=[case], unlabeled=[other], events=events, cancel=events.cancel)
    assert early.stopped == "cancelled"
    again = teach(request(stopped, resume=True, overwrite=True), cases=[case], unlabeled=[other])
    assert again.steps > early.steps
    assert all(torch.equal(tensor, expected[name]) for name, tensor in read_tensors(again.path).items())


def test_it_is_not_resumed_with_another_scan_without_labels(case, other, tmp_path):
    events = CancelAtStep(2)
    teach(request(tmp_path), cases=[case], unlabeled=[other], events=events, cancel=events.cancel)
    changed = replace(other, array=other.array[:, :, ::-1].copy())
    with pytest.raises(RequestError, match="other scans"):
        teach(request(tmp_path, resume=True, overwrite=True), cases=[case], unlabeled=[changed])


@pytest.mark.parametrize("role", ["cases", "validation"])
def test_a_scan_that_is_also_given_with_labels_is_left_out_and_that_is_said(case, data_folder, tmp_path, role):
    second = small_case(data_folder, "chaos_t2_03")
    given = {"cases": [case, second]} if role == "cases" else {"cases": [case], "validation": [second]}
    result = teach(request(tmp_path, epochs=1), unlabeled=[second.volume], **given)
    assert any("also given with labels" in sentence for sentence in result.advice)
    assert read_manifest(result.path).training["unlabeled"] == []


def test_with_a_frozen_encoder_it_says_what_to_do(case, other, tmp_path):
    with pytest.raises(RequestError, match="Leave them out, or teach the compact"):
        teach(request(tmp_path, adaptation="frozen"), cases=[case], unlabeled=[other])


def test_only_what_the_network_is_sure_of_is_a_label(case, other, tmp_path):
    job = prepared(tmp_path, case, other)
    batches = job._batches(None)
    training = job.self_training
    training.label(batches, lambda: None)
    own = batches.draw.banks[-1]
    sure = training._probabilities(training.banks[0], [5]).amax(dim=1) >= SURE
    framed = own.framing.labels(sure.to(torch.uint8))[0, 0].bool()
    assert bool((own.labels[5, 0][~framed & (own.labels[5, 0] != 0)] == UNLABELLED).all())
    assert bool((own.labels == UNLABELLED).any())
    assert own.labelled.all()


def test_half_of_each_batch_is_from_the_scans_that_the_network_labelled(case, other, tmp_path):
    job = prepared(tmp_path, case, other)
    banks = (*job.setup.draw.banks, *job.setup.draw.banks)
    left_out = [frozenset(range(len(banks[0]))), frozenset()]
    own = BalancedSampler(banks, num_classes=2, excluded=left_out)
    mixed = MixedSampler(job.setup.draw.sampler, own)
    generator = torch.Generator().manual_seed(0)
    assert [item.bank for item in mixed.draw(4, generator)] == [0, 0, 1, 1]
    assert [item.bank for item in mixed.draw(1, generator)] == [0]


def test_with_minutes_as_many_slices_are_labelled_as_there_is_time_for(case, other, tmp_path):
    job = prepared(tmp_path, case, other)
    training = job.self_training
    assert training._spacing(None) == 1
    assert training._spacing(1e9) == 1
    assert training._spacing(1e-9) > len(training.banks[0])
    training._every = 5
    bank = training._labeled_bank(training.banks[0], lambda: None)
    assert list(np.flatnonzero(bank.labelled)) == list(range(0, len(bank), 5))
    assert bool((bank.labels[~torch.from_numpy(bank.labelled)] == UNLABELLED).all())


def test_the_state_of_a_training_without_such_scans_has_nothing_on_them(case, tmp_path):
    job = TeachJob(request(tmp_path), lambda progress: None, ignore_events, CancelToken())
    job.prepare([case], None)
    assert isinstance(job.self_training, SelfTraining)
    assert job.self_training.state() is None
    assert not job.self_training.is_due
