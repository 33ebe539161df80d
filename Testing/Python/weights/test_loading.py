"""A model is loaded by its id or its file, with the encoder it stands on, or a sentence says what is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from model_files import TINY_ENCODER, manifest, tiny_architecture
from official_layouts import listed, save, tiny_sam
from parity_weights import GoldenFile
from stored_models import adapter_file, catalog, encoder_entry, encoder_file, model_entry

from HSAMSegmentLib.errors import CheckpointError, ModelNotFoundError
from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.runtime.disk import sha256_of
from HSAMSegmentLib.weights.bundle import read_manifest, read_shapes, read_tensors, save_bundle
from HSAMSegmentLib.weights.exporting import export_model
from HSAMSegmentLib.weights.loading import bundle_tensors, load_model, save_model, starting_tensors
from HSAMSegmentLib.weights.manifest import EncoderSource
from HSAMSegmentLib.weights.store import Store

TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def files(parity_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return {"encoder": encoder_file(parity_folder, folder), "adapter": adapter_file(parity_folder, folder)}


@pytest.fixture
def store(tmp_path, files) -> Store:
    (tmp_path / "embedded").mkdir()
    known = catalog(encoder_entry(files["encoder"]), model_entry())
    return Store(tmp_path / "store", catalog=known, builtin=tmp_path / "embedded")


@pytest.fixture
def network():
    torch.manual_seed(3)
    return build_network(tiny_architecture()).eval()


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def adapted(**changes: object) -> Architecture:
    return tiny_architecture(encoder=EncoderSpec("custom", 224, TINY_ENCODER), lora_rank=2, lora_blocks=1, **changes)


def test_a_bundle_is_loaded_from_its_file_ready_to_segment(store, network, tmp_path):
    path = save_model(tmp_path / "m.safetensors", network, manifest())
    loaded = load_model(path, store=store)
    assert same(loaded.network, network)
    assert not loaded.network.training
    assert loaded.manifest == manifest()
    assert loaded.path == path
    assert loaded.notes == ()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded.network(images).stages[0], network(images).stages[0])


def test_a_bundle_is_loaded_by_its_id(store, network, tmp_path):
    store.import_file(save_model(tmp_path / "m.safetensors", network, manifest()))
    assert same(load_model("tiny", store=store).network, network)


def test_a_builtin_bundle_is_loaded_by_its_id(store, network, tmp_path):
    save_model(tmp_path / "embedded" / "m.safetensors", network, manifest("comes-along"))
    assert same(load_model("comes-along", store=store).network, network)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_bundle_at_half_precision_becomes_float32(store, network, tmp_path, dtype):
    path = save_model(tmp_path / "m.safetensors", network, manifest(), dtype=dtype)
    loaded = load_model(path, store=store).network.state_dict()
    for name, tensor in network.state_dict().items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], tensor.to(getattr(torch, dtype)).float())


def test_a_bundle_that_refers_to_an_encoder_holds_head_and_adapters_only(store, files, tmp_path):
    description = manifest(
        "finetuned", architecture=adapted(), encoder_source=EncoderSource(False, "custom", sha256_of(files["encoder"]))
    )
    network = build_network(adapted())
    network.load_state_dict(starting_tensors(files["encoder"], network, "linear", store=store), strict=False)
    torch.nn.init.normal_(network.encoder.blocks[3].attn.qkv.lora_q_up)
    path = save_model(tmp_path / "finetuned.safetensors", network, description)
    assert {name for name in read_shapes(path) if name.startswith("encoder.")} == {
        f"encoder.blocks.3.attn.qkv.lora_{part}" for part in ("q_down", "q_up", "v_down", "v_up")
    }
    store.import_file(files["encoder"])
    assert same(load_model(path, store=store).network, network)


def test_a_bundle_may_refer_to_the_encoder_of_another_bundle(store, network, tmp_path):
    store.import_file(save_model(tmp_path / "first.safetensors", network, manifest("first")))
    refers = manifest("second", encoder_source=EncoderSource(False, "first"))
    second = build_network(tiny_architecture())
    second.encoder.load_state_dict(network.encoder.state_dict())
    path = save_model(tmp_path / "second.safetensors", second, refers)
    assert not any(name.startswith("encoder.") for name in read_shapes(path))
    assert same(load_model(path, store=store).network, second)


def test_a_missing_encoder_is_told_with_name_size_and_how_to_get_it(store, files):
    with pytest.raises(ModelNotFoundError) as caught:
        load_model(files["adapter"], store=store, image_size=224)
    text = str(caught.value)
    assert "needs Tiny encoder, which is not on this computer (tiny_encoder.pth," in text
    assert "hsam-segment models download custom" in text


def test_an_encoder_that_nobody_knows_is_told(store, network, tmp_path):
    refers = manifest("second", encoder_source=EncoderSource(False, "somebodys-encoder"))
    path = save_model(tmp_path / "second.safetensors", network, refers)
    with pytest.raises(ModelNotFoundError, match="import it under the id 'somebodys-encoder'"):
        load_model(path, store=store)


def test_another_encoder_than_the_one_of_the_finetuning_is_refused_with_both_hashes(store, network, tmp_path):
    store.import_file(save_model(tmp_path / "first.safetensors", network, manifest("first")))
    refers = manifest("second", encoder_source=EncoderSource(False, "first", "0" * 64))
    path = save_model(tmp_path / "second.safetensors", network, refers)
    with pytest.raises(CheckpointError) as caught:
        load_model(path, store=store)
    assert "0" * 64 in str(caught.value)
    assert store.sha256(store.find("first").path) in str(caught.value)


def test_a_model_that_is_not_there_is_told(store):
    with pytest.raises(ModelNotFoundError, match=r"Tiny model is not on this computer \(tiny_model\.pth, 20\.0 MB\)"):
        load_model("tiny_model", store=store)
    with pytest.raises(ModelNotFoundError, match="There is no model 'nothing'"):
        load_model("nothing", store=store)
    with pytest.raises(CheckpointError, match=r"There is no file .*gone\.safetensors"):
        load_model("gone.safetensors", store=store)


def test_an_encoder_alone_is_no_model(store, files):
    store.import_file(files["encoder"])
    with pytest.raises(CheckpointError, match="segments nothing by itself"):
        load_model("custom", store=store)
    with pytest.raises(CheckpointError, match="is an encoder"):
        load_model(files["encoder"], store=store)


def test_a_bundle_whose_tensors_do_not_fit_its_description_is_refused_by_name(store, network, tmp_path):
    tensors = bundle_tensors(network, manifest())
    del tensors["encoder.pos_embed"]
    tensors["head.surplus"] = torch.zeros(1)
    path = save_bundle(tmp_path / "m.safetensors", tensors, manifest())
    with pytest.raises(CheckpointError) as caught:
        load_model(path, store=store)
    assert "m.safetensors does not fit" in str(caught.value)
    assert "the file lacks encoder.pos_embed" in str(caught.value)
    assert "the network has no head.surplus" in str(caught.value)
    wrong = replace(manifest(), architecture=tiny_architecture(num_classes=5))
    path = save_bundle(tmp_path / "n.safetensors", network, wrong)
    with pytest.raises(CheckpointError, match=r"is \[3, .* in the file and \[6, .* in the network"):
        load_model(path, store=store)


def test_an_official_model_of_the_store_gives_the_official_numbers(store, files, parity_folder):
    store.import_file(files["encoder"])
    store.import_file(files["adapter"])
    golden = GoldenFile(parity_folder / "samed_tiny_224.npz")
    loaded = load_model("tiny_model", store=store)
    with torch.inference_mode():
        (logits,) = loaded.network(golden.images()).stages
    assert golden.difference("low_res_logits", logits) < TOLERANCE
    assert loaded.manifest.title == "Tiny model"
    assert "recognized by its layout only" in loaded.notes[0]


def test_an_official_file_is_loaded_as_it_is_and_says_what_is_assumed(store, files):
    store.import_file(files["encoder"])
    loaded = load_model(str(files["adapter"]), store=store, image_size=224)
    assert [label.name for label in loaded.manifest.labels][:2] == ["class 1", "class 2"]
    assert loaded.manifest.architecture.encoder.options["embed_dim"] == 96
    assert any("class 1" in note for note in loaded.notes)


def test_an_adapter_file_and_an_encoder_of_another_size_are_refused_with_both_names(
    store, files, parity_folder, tmp_path
):
    shapes = tiny_sam(parity_folder, 224)
    smaller = {key: shape for key, shape in shapes.items() if "blocks.3." not in key}
    store.import_file(save(tmp_path / "other.pth", smaller), model_id="own-encoder")
    description = replace(model_entry().manifest, encoder_source=EncoderSource(False, "own-encoder"))
    known = catalog(replace(model_entry(), encoder="own-encoder", manifest=description))
    other = Store(store.folder, catalog=known, builtin=tmp_path / "embedded")
    other.import_file(files["adapter"])
    with pytest.raises(CheckpointError) as caught:
        load_model("tiny_model", store=other)
    assert "is made for an encoder of width 96 with 4 blocks" in str(caught.value)
    assert "own-encoder.pth is an encoder of width 96 with 3 blocks" in str(caught.value)


def test_an_official_model_is_exported_as_a_bundle_that_gives_the_same(store, files, tmp_path):
    store.import_file(files["encoder"])
    store.import_file(files["adapter"])
    path = export_model(store, "tiny_model", tmp_path / "shared")
    assert path.suffix == ".safetensors"
    assert read_manifest(path).encoder_source == EncoderSource(False, "custom", sha256_of(files["encoder"]))
    assert same(load_model(path, store=store).network, load_model("tiny_model", store=store).network)


def test_a_new_network_starts_from_sam_at_its_own_image_size(parity_folder, tmp_path, store):
    sam = save(tmp_path / "sam.pth", listed(parity_folder, "keys_sam_tiny_1024_fake_checkpoint"))
    network = build_network(
        Architecture(EncoderSpec("custom", 224, TINY_ENCODER), "hsam", 2, form="paper", lora_rank=4)
    )
    start = starting_tensors(sam, network, "hsam", store=store)
    own = network.state_dict()
    assert all(own[name].shape == tensor.shape for name, tensor in start.items())
    assert set(start) >= {name for name in own if name.startswith("encoder.") and "lora" not in name}
    assert "head.decoder1.iou_token" in start
    assert not any(name.startswith("head.decoder2.") for name in start)


def test_a_new_network_starts_from_another_model(store, network, tmp_path):
    path = save_model(tmp_path / "m.safetensors", network, manifest())
    start = starting_tensors(path, build_network(tiny_architecture()), "linear", store=store)
    assert all(torch.equal(start[name], tensor) for name, tensor in read_tensors(path).items())


@pytest.mark.slow
def test_an_hsam_file_on_sam_vit_b_gives_the_official_numbers_from_the_store(parity_folder, tmp_path):
    """The complete way of a user: two downloaded files, imported, loaded by the id."""
    base = {key: list(shape) for key, shape in vit_b_shapes(224).items()}
    adapter = save(tmp_path / "adapter.pth", listed(parity_folder, "keys_hsam_vit_b_224"))
    store = Store(tmp_path / "store")
    store.import_file(save(tmp_path / "sam.pth", base), model_id="somebodys-vit-b")
    with pytest.raises(ModelNotFoundError, match=r"sam_vit_b_01ec64\.pth, 375\.0 MB"):
        load_model(adapter, store=store)
    imported = store.import_file(adapter, model_id="own")
    description = replace(imported.manifest, encoder_source=EncoderSource(False, "somebodys-vit-b"))
    Path(f"{imported.path}.json").write_text(description.to_json(), encoding="utf-8")
    golden = GoldenFile(parity_folder / "hsam_vitb_224_b1.npz")
    with torch.inference_mode():
        logits = load_model("own", store=store).network(golden.images())
    assert golden.difference("s1_low_res_logits", logits.stages[0]) < TOLERANCE
    assert golden.difference("s2_low_res_logits", logits.stages[1]) < TOLERANCE


def vit_b_shapes(image_size: int) -> dict[str, tuple[int, ...]]:
    network = build_network(Architecture(EncoderSpec("sam_vit_b", image_size), "linear", 1))
    return {f"image_encoder.{key}": tuple(tensor.shape) for key, tensor in network.encoder.state_dict().items()}


def test_what_is_frozen_and_what_is_trained_stays_as_the_builder_says(store, files, tmp_path):
    network = build_network(adapted())
    path = save_model(tmp_path / "m.safetensors", network, manifest(architecture=adapted()))
    loaded = load_model(path, store=store).network
    flags = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in loaded.named_parameters()} == flags
    assert set(flags.values()) == {True, False}


def test_a_description_of_another_network_is_refused_before_anything_is_allocated(store, network, tmp_path):
    """Some gigabytes would be allocated if the network were built before its tensors are compared."""
    huge = tiny_architecture(encoder=EncoderSpec("custom", 64, {**TINY_ENCODER, "embed_dim": 15000}))
    path = save_bundle(tmp_path / "huge.safetensors", network, manifest(architecture=huge))
    with pytest.raises(CheckpointError, match="does not fit the network that its description asks for"):
        load_model(path, store=store)


def test_the_file_of_a_loaded_model_may_go_away(store, network, tmp_path):
    path = save_model(tmp_path / "m.safetensors", network, manifest())
    loaded = load_model(path, store=store)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert same(loaded.network, network)


@pytest.mark.parametrize("image_size", [1024, 256])
def test_mobile_sams_encoder_is_taken_from_its_file_at_any_image_size(store, parity_folder, tmp_path, image_size):
    """The layout of `mobile_sam.pt`: TinyViT with the classifier it was distilled with, and SAM's decoder."""
    architecture = Architecture(EncoderSpec("mobile_sam", image_size), "samed", 2)
    network = build_network(architecture).eval()
    sam = load_state(save(tmp_path / "sam.pth", listed(parity_folder, "keys_sam_tiny_1024_fake_checkpoint")))
    state = {key: tensor for key, tensor in sam.items() if not key.startswith("image_encoder.")}
    state.update({f"image_encoder.{key}": tensor for key, tensor in network.encoder.state_dict().items()})
    state["image_encoder.head.weight"] = torch.zeros(1, 320)
    torch.save(state, tmp_path / "mobile.pt")
    assert store.import_file(tmp_path / "mobile.pt", model_id="my-mobile").kind == "encoder"
    start = starting_tensors("my-mobile", network, "samed", store=store)
    assert "head.decoder.iou_token" in start
    network.load_state_dict(start, strict=False)
    description = manifest(architecture=architecture, encoder_source=EncoderSource(False, "my-mobile"))
    path = save_model(tmp_path / "m.safetensors", network, description)
    assert not any(name.startswith("encoder.") for name in read_shapes(path))
    assert same(load_model(path, store=store).network, network)


def load_state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)
