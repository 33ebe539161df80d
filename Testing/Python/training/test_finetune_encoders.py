"""Fine-tuning on top of encoders from files: adapters in the last blocks, MobileSAM, bundles with other classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from official_layouts import listed, save
from small_cases import segmentation_of, small_case, small_volume
from stored_models import encoder_file

from HSAMSegmentLib.errors import ModelNotFoundError
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.models.building import build_encoder
from HSAMSegmentLib.models.specification import EncoderSpec
from HSAMSegmentLib.training.data.cases import make_case
from HSAMSegmentLib.training.finetune import finetune, train
from HSAMSegmentLib.training.finetune_state import FinetuneState
from HSAMSegmentLib.training.preparation import prepare
from HSAMSegmentLib.training.request import FinetuneRequest, FinetuneResult
from HSAMSegmentLib.weights.bundle import read_shapes
from HSAMSegmentLib.weights.loading import load_model
from HSAMSegmentLib.weights.store import HOME_VARIABLE, Store


@pytest.fixture(scope="module")
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
    settings = {"epochs": 2, "device": "cpu", "image_size": 64, "cache_folder": folder, "head": "linear", **options}
    return FinetuneRequest(output=folder / "finetuned.safetensors", encoder="small-sam", **settings)


@pytest.fixture(scope="module")
def adapted(home, case, tmp_path_factory) -> tuple[FinetuneResult, dict[int, int], FinetuneState]:
    """A training with adapters in the last two of four blocks, and how many images went through each block."""
    folder = tmp_path_factory.mktemp("adapted")
    job = prepare(request(folder, lora_blocks=2), cases=[case])
    passed = {0: 0, 3: 0}
    for index in passed:

        def count(module, inputs, index=index):
            passed[index] += len(inputs[0])

        job.trainer.network.encoder.blocks[index].register_forward_pre_hook(count)
    return train(job), passed, job


def test_with_adapters_in_the_last_blocks_the_first_blocks_see_each_view_once(adapted):
    result, passed, job = adapted
    views = 2 * len(job.setup.training_set.sampler)
    held = sum(len(item.slices) for item in job.setup.validation_sets)
    assert passed[0] == views + held
    assert passed[3] == result.steps * job.request.batch_size


def test_a_file_with_adapters_holds_no_encoder_and_names_its_own(adapted, home):
    result, _, _ = adapted
    names = read_shapes(result.path)
    in_encoder = [name for name in names if name.startswith("encoder.")]
    assert len(in_encoder) == 2 * 4
    assert all(".lora_" in name for name in in_encoder)
    source = load_model(result.path).manifest.encoder_source
    assert (source.included, source.model_id) == (False, "small-sam")
    assert source.sha256 == Store(home).sha256(Store(home).path_of("small-sam"))


def test_a_model_with_adapters_segments_on_the_scans_own_grid(adapted, case):
    result, _, job = adapted
    assert any(bool(tensor.any()) for name, tensor in job.trainer.network.named_parameters() if "lora_q_up" in name)
    found = Segmenter(load_model(result.path), device="cpu").segment(case.volume).segmentation
    assert found.geometry == case.volume.geometry


def test_a_bundle_with_other_classes_hands_on_its_adapters_and_the_classes_in_common(adapted, data_folder, tmp_path):
    result, _, _ = adapted
    volume, labels = small_volume(data_folder)
    renamed = make_case(volume, segmentation_of(labels, volume.geometry, {1: "tumor", 2: "right kidney"}))
    options = FinetuneRequest(
        output=tmp_path / "next.safetensors", start_from=str(result.path), epochs=1, lora_blocks=2, device="cpu"
    )
    again = finetune(options, cases=[renamed])
    sentence = next(note for note in again.notes if note.startswith("Taken from the starting model"))
    assert "already knew: right kidney." in sentence
    manifest = load_model(again.path).manifest
    assert manifest.encoder_source.model_id == "small-sam"
    start = manifest.training["start"]
    assert start["common_labels"] == ["right kidney"]
    assert start["by_class"] > 0


def test_a_head_finetuned_anew_keeps_the_adapters_that_its_encoder_works_with(adapted, case, tmp_path):
    result, _, _ = adapted
    options = FinetuneRequest(
        output=tmp_path / "next.safetensors",
        start_from=str(result.path),
        epochs=1,
        device="cpu",
        cache_folder=tmp_path,
    )
    again = load_model(finetune(options, cases=[case]).path)
    assert again.manifest.training["settings"]["adaptation"] == "frozen"
    before = load_model(result.path).network.encoder.state_dict()
    after = again.network.encoder.state_dict()
    assert any(".lora_" in name for name in after)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_an_encoder_that_is_not_there_is_named_with_what_is(home, case, tmp_path):
    options = FinetuneRequest(output=tmp_path / "m.safetensors", encoder="small-samm", epochs=1)
    with pytest.raises(ModelNotFoundError, match="Did you mean small-sam"):
        finetune(options, cases=[case])


@pytest.mark.slow
def test_mobile_sams_encoder_can_be_finetuned_on(home, case, parity_folder, tmp_path):
    encoder = build_encoder(EncoderSpec("mobile_sam", 1024))
    sam = torch.load(
        save(tmp_path / "sam.pth", listed(parity_folder, "keys_sam_tiny_1024_fake_checkpoint")), weights_only=True
    )
    state = {key: tensor for key, tensor in sam.items() if not key.startswith("image_encoder.")}
    state.update({f"image_encoder.{key}": tensor for key, tensor in encoder.state_dict().items()})
    torch.save(state, tmp_path / "mobile.pt")
    Store(home).import_file(tmp_path / "mobile.pt", model_id="my-mobile")
    options = FinetuneRequest(
        output=tmp_path / "m.safetensors", encoder="my-mobile", head="linear", epochs=1, image_size=128, device="cpu"
    )
    manifest = load_model(finetune(options, cases=[case]).path).manifest
    assert manifest.architecture.encoder.name == "mobile_sam"
    assert manifest.encoder_source.model_id == "my-mobile"
