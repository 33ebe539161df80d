"""What goes wrong while a model is fine-tuned ends in a sentence, with what was good kept."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from small_cases import segmentation_of, small_case, small_volume
from small_disk import fill, mounted_disk
from stored_models import encoder_file

from HSAMSegmentLib.errors import CancelledError, OutputError, TrainingError
from HSAMSegmentLib.runtime.progress import CancelToken, Progress
from HSAMSegmentLib.training.data.cases import make_case
from HSAMSegmentLib.training.finetune import finetune, train
from HSAMSegmentLib.training.loop.checkpointer import load_state, state_path
from HSAMSegmentLib.training.preparation import prepare
from HSAMSegmentLib.training.request import FinetuneRequest, ValidationMetrics
from HSAMSegmentLib.weights.bundle import read_tensors
from HSAMSegmentLib.weights.loading import load_model
from HSAMSegmentLib.weights.store import HOME_VARIABLE, Store


@pytest.fixture(scope="module", autouse=True)
def home(parity_folder, tmp_path_factory):
    """A store with a small SAM encoder of random weights in the official layout; it is the default one meanwhile."""
    home = tmp_path_factory.mktemp("home")
    Store(home).import_file(encoder_file(parity_folder, home), model_id="small-sam")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(home))
        yield home


@pytest.fixture(scope="module")
def case(data_folder):
    return small_case(data_folder)


def request(folder: Path, **options) -> FinetuneRequest:
    settings = {
        "epochs": 3,
        "device": "cpu",
        "image_size": 64,
        "cache_folder": folder,
        "head": "linear",
        "encoder": "small-sam",
        **options,
    }
    return FinetuneRequest(output=folder / "finetuned.safetensors", **settings)


@pytest.fixture(scope="module")
def whole(case, tmp_path_factory) -> dict[str, torch.Tensor]:
    """The weights of a run that nobody disturbed."""
    return read_tensors(finetune(request(tmp_path_factory.mktemp("whole")), cases=[case]).path)


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.fixture
def small_disk(tmp_path):
    """A disk with little more room than the reserve that nothing is written into."""
    with mounted_disk(tmp_path / "disk", megabytes=80) as folder:
        yield folder


def test_a_disk_that_gets_full_while_learning_keeps_the_last_state_and_the_training_goes_on_later(
    case, whole, small_disk, tmp_path
):
    def fill_at_the_first_validation(event: object) -> None:
        if isinstance(event, ValidationMetrics) and event.step == 3:
            fill(small_disk)

    options = {"save_seconds": 0.0, "cache_folder": tmp_path}
    with pytest.raises(OutputError, match="free"):
        finetune(request(small_disk, **options), cases=[case], events=fill_at_the_first_validation)
    assert load_state(state_path(small_disk / "finetuned.safetensors"))["learner"]["steps"] == 3
    assert {item.name for item in small_disk.iterdir()} == {"filler", "finetuned.safetensors.training"}
    (small_disk / "filler").unlink()
    resumed = finetune(request(small_disk, resume=True, overwrite=True, **options), cases=[case])
    assert "Resumed at step 3." in resumed.notes
    assert same(read_tensors(resumed.path), whole)


def test_features_that_do_not_fit_on_the_disk_are_refused_in_a_sentence(case, small_disk, tmp_path):
    filler = fill(small_disk)
    with pytest.raises(OutputError, match=r"Caching the encoder's features needs .* free"):
        finetune(request(tmp_path, cache_folder=small_disk), cases=[case])
    assert list(small_disk.iterdir()) == [filler]
    assert not (tmp_path / "finetuned.safetensors").exists()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve disk space")
def test_the_space_for_features_is_taken_at_once_so_that_a_full_disk_cannot_kill_the_process(small_disk):
    from HSAMSegmentLib.training.features.feature_cache import _new_file

    before = os.statvfs(small_disk).f_bfree
    _new_file(small_disk / "features.npy", np.float16, (1 << 20,))
    assert os.statvfs(small_disk).f_bfree <= before - 512
    with pytest.raises(OSError):
        _new_file(small_disk / "more.npy", np.float16, (1 << 26,))


def test_a_rate_that_is_far_too_high_ends_with_the_best_state_before_it(case, tmp_path):
    job = prepare(request(tmp_path, rate=1e18), cases=[case])
    job.validator.validate()
    result = train(job)
    assert result.stopped == "loss not a number"
    assert any("not finite" in note and "are kept" in note for note in result.notes)
    assert load_model(result.path).manifest.training["kept_step"] == 0
    assert all(bool(torch.isfinite(tensor).all()) for tensor in read_tensors(result.path).values())


def test_a_rate_that_ruins_the_first_step_leaves_no_file(case, tmp_path):
    with pytest.raises(TrainingError, match="lower rate"):
        finetune(request(tmp_path, rate=1e18), cases=[case])
    assert not (tmp_path / "finetuned.safetensors").exists()


class CountingToken(CancelToken):
    """Counts how often it is asked in each stage, and cancels itself at the n-th time of one of them.

    How often it is asked before that differs, since what cannot be interrupted is waited for by the clock.
    """

    def __init__(self, stage: str = "", questions: int = 0) -> None:
        super().__init__()
        self.asked: dict[str, int] = {}
        self._stage, self._when = "", (stage, questions)

    def told(self, progress: Progress) -> None:
        """Receive the stage."""
        self._stage = progress.stage

    def raise_if_cancelled(self) -> None:
        self.asked[self._stage] = self.asked.get(self._stage, 0) + 1
        if (self._stage, self.asked[self._stage]) == self._when:
            self.cancel()
        super().raise_if_cancelled()


@pytest.mark.slow
def test_a_cancel_in_the_middle_of_any_stage_loses_nothing_that_was_learned(case, whole, tmp_path):
    for name in ("counted", "encoding", "first", "middle", "late"):
        (tmp_path / name).mkdir()
    counted = CountingToken()
    finetune(request(tmp_path / "counted"), cases=[case], progress=counted.told, cancel=counted)
    assert counted.asked["Encoding the slices"] > 500
    token = CountingToken("Encoding the slices", 250)
    with pytest.raises(CancelledError):
        finetune(request(tmp_path / "encoding"), cases=[case], progress=token.told, cancel=token)
    assert {item.name for item in (tmp_path / "encoding").iterdir()} == {"finetuned.safetensors.training"}
    for name, part in (("first", 0.1), ("middle", 0.4), ("late", 0.7)):
        token = CountingToken("Learning", int(part * counted.asked["Learning"]))
        stopped = finetune(request(tmp_path / name), cases=[case], progress=token.told, cancel=token)
        assert stopped.stopped == "cancelled"
        assert load_model(stopped.path).network.num_classes == 2
        resumed = finetune(request(tmp_path / name, resume=True, overwrite=True), cases=[case])
        assert same(read_tensors(resumed.path), whole)


def test_a_label_that_only_held_out_slices_would_have_is_finetuned(data_folder, tmp_path):
    volume, labels = small_volume(data_folder)
    rare = labels.copy()
    rare[5][labels[5] == 1] = 3
    job = prepare(request(tmp_path), cases=[make_case(volume, segmentation_of(rare, volume.geometry))])
    assert all(job.setup.training_set.sampler.by_label)
    assert job.setup.validation_sets


def test_a_scan_that_does_not_overlap_its_labels_leaves_no_file(case, data_folder, tmp_path):
    from dataclasses import replace

    volume, labels = small_volume(data_folder)
    elsewhere = replace(volume.geometry, origin_mm=(9000.0, 0.0, 0.0))
    with pytest.raises(TrainingError, match="do not overlap"):
        finetune(request(tmp_path), cases=[make_case(volume, segmentation_of(labels, elsewhere))])
    assert not any(tmp_path.iterdir())
