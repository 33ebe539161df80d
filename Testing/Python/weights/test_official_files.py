"""Official files: recognized by content, loaded to the official numbers, refused where they do not belong together."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from official_layouts import listed, save, tiny_adapters, tiny_autosam, tiny_sam, with_classes
from parity_weights import GoldenFile, assert_checksum
from torch.nn import functional as F

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.models.interface import merged_logits
from HSAMSegmentLib.weights.catalog import load_catalog
from HSAMSegmentLib.weights.convert.official_files import network_from_official, read_official
from HSAMSegmentLib.weights.convert.official_manifest import manifest_for, official_architecture
from HSAMSegmentLib.weights.convert.recognition import plain_state, recognize, require_architecture

TOLERANCE = 2e-5


def shaped(shapes: dict[str, list[int]]) -> dict[str, SimpleNamespace]:
    """Stand-ins of tensors: names and shapes are all that recognition looks at."""
    return {key: SimpleNamespace(shape=tuple(shape)) for key, shape in shapes.items()}


def title(shapes: dict[str, list[int]]) -> str:
    return recognize(shaped(shapes), "file").title


def sam_shapes(width: int, depth: int, heads: int, global_blocks: tuple[int, ...]) -> dict[str, list[int]]:
    """Keys of a SAM checkpoint that tell its size."""
    shapes = {
        "image_encoder.patch_embed.proj.weight": [width, 3, 16, 16],
        "image_encoder.pos_embed": [1, 64, 64, width],
    }
    for block in range(depth):
        rows = 127 if block in global_blocks else 27
        shapes[f"image_encoder.blocks.{block}.attn.rel_pos_h"] = [rows, width // heads]
    return shapes


def load(folder, adapter, sam, image_size=None):
    weights, encoder = read_official(adapter), read_official(sam)
    architecture = official_architecture(weights.found, image_size=image_size, encoder=encoder.found.encoder)
    return network_from_official(weights, architecture, encoder)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("keys_hsam_vit_b_224", "H-SAM for SAM ViT-B, 8 classes, rank 5, 224 pixels"),
        ("keys_hsam_vit_b_512", "H-SAM for SAM ViT-B, 8 classes, rank 5, 512 pixels"),
        ("keys_hsam_vit_l_224", "H-SAM for SAM ViT-L, 8 classes, rank 5, 224 pixels"),
        ("keys_samed_vit_b_512", "SAMed for SAM ViT-B, 8 classes, rank 4"),
    ],
)
def test_adapter_files_are_recognized_by_their_tensors(parity_folder, name, expected):
    assert title(listed(parity_folder, name)) == expected


@pytest.mark.parametrize("classes", [1, 3, 13])
def test_the_class_count_is_read_from_the_file(parity_folder, classes):
    shapes = listed(parity_folder, "keys_hsam_vit_b_224")
    shapes["mask_decoder.mask_tokens.weight"] = [classes + 1, 256]
    assert recognize(shaped(shapes), "file").num_classes == classes


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((768, 12, 12, (2, 5, 8, 11)), "SAM ViT-B, 1024 pixels"),
        ((1024, 24, 16, (5, 11, 17, 23)), "SAM ViT-L, 1024 pixels"),
        ((1280, 32, 16, (7, 15, 23, 31)), "SAM ViT-H, 1024 pixels"),
    ],
)
def test_sam_checkpoints_are_recognized_by_their_encoder(sizes, expected):
    found = recognize(shaped(sam_shapes(*sizes)), "file")
    assert found.encoder is not None
    assert f"{found.encoder_title}, {found.image_size} pixels" == expected
    assert found.head == ""


def test_mobile_sam_is_recognized_by_its_stem():
    shapes = {"image_encoder.patch_embed.seq.0.c.weight": [32, 3, 3, 3], "mask_decoder.iou_token.weight": [1, 256]}
    found = recognize(shaped(shapes), "file")
    assert (found.title, found.encoder_name, found.head) == ("MobileSAM, 1024 pixels", "mobile_sam", "")


def test_a_sam_checkpoint_of_another_size_describes_its_encoder_completely(parity_folder):
    spec = recognize(shaped(tiny_sam(parity_folder, 512)), "file").encoder
    assert spec.image_size == 512
    assert spec.options == {"embed_dim": 96, "depth": 4, "num_heads": 3, "global_attn_indexes": [1, 3]}


@pytest.mark.parametrize(
    ("head", "expected"),
    [("vit", "AutoSAM (ViT head)"), ("cnn", "AutoSAM (convolution head)"), ("linear", "AutoSAM (linear head)")],
)
def test_whole_models_of_autosam_are_recognized_by_their_head(parity_folder, head, expected):
    found = recognize(shaped(tiny_autosam(parity_folder, head)), "file")
    assert found.title.startswith(expected)
    assert (found.num_classes, found.image_size, found.holds_encoder) == (3, 1024, True)


def test_prefixes_and_wrappers_of_training_are_looked_through(parity_folder):
    shapes = shaped(tiny_autosam(parity_folder, "linear"))
    prefixed = {f"module.{key}": value for key, value in shapes.items()}
    content = {"epoch": 7, "optimizer": {"lr": 1e-3}, "state_dict": prefixed}
    assert plain_state(content, "file").keys() == shapes.keys()


@pytest.mark.parametrize("size", [224, pytest.param(512, marks=pytest.mark.slow)])
def test_an_hsam_file_gives_the_official_numbers(parity_folder, tmp_path, size):
    adapters = tiny_adapters(listed(parity_folder, f"keys_hsam_vit_b_{size}"))
    adapter = save(tmp_path / "adapter.pth", adapters)
    golden = GoldenFile(parity_folder / f"hsam_tiny_{size}_b1.npz")
    state = {key: value for key, value in read_official(adapter).state.items() if "prompt_encoder2" not in key}
    assert_checksum(parity_folder, f"hsam_tiny_{size}_b1/lora_file_without_prompt_encoder2", state)
    network = load(tmp_path, adapter, save(tmp_path / "sam.pth", tiny_sam(parity_folder, size)))
    with torch.inference_mode():
        logits = network(golden.images())
    assert golden.difference("s1_low_res_logits", logits.stages[0]) < TOLERANCE
    assert golden.difference("s2_low_res_logits", logits.stages[1]) < TOLERANCE
    labels = merged_logits(logits, (size, size)).argmax(dim=1)
    assert golden.mismatches_on_safe_pixels("labels_avg", "safe_avg", labels) == 0


@pytest.mark.parametrize(("size", "classes"), [pytest.param(512, 1, marks=pytest.mark.slow), (224, 3)])
def test_an_hsam_file_of_another_class_count_gives_the_official_numbers(parity_folder, tmp_path, size, classes):
    shapes = with_classes(tiny_adapters(listed(parity_folder, f"keys_hsam_vit_b_{size}")), classes)
    golden = GoldenFile(parity_folder / f"hsam_tiny_{size}_nc{classes}.npz")
    adapter = save(tmp_path / "adapter.pth", shapes)
    network = load(tmp_path, adapter, save(tmp_path / "sam.pth", tiny_sam(parity_folder, size)))
    with torch.inference_mode():
        logits = network(golden.images())
    assert golden.difference("s2_low_res_logits", logits.stages[1]) < TOLERANCE


def test_a_samed_file_gives_the_official_numbers(parity_folder, tmp_path):
    golden = GoldenFile(parity_folder / "samed_tiny_224.npz")
    adapter = save(tmp_path / "adapter.pth", tiny_adapters(listed(parity_folder, "keys_samed_vit_b_512")))
    sam = save(tmp_path / "sam.pth", tiny_sam(parity_folder, 224))
    network = load(tmp_path, adapter, sam, image_size=224)
    with torch.inference_mode():
        (logits,) = network(golden.images()).stages
    assert golden.difference("low_res_logits", logits) < TOLERANCE


@pytest.mark.slow
def test_an_autosam_file_of_parallel_training_gives_the_official_numbers(parity_folder, tmp_path):
    golden = GoldenFile(parity_folder / "autosam_linear_tiny_1024.npz")
    path = save(tmp_path / "autosam.pth", tiny_autosam(parity_folder, "linear"), prefix="module.", wrapper="state_dict")
    weights = read_official(path)
    network = network_from_official(weights, official_architecture(weights.found))
    images = F.interpolate(golden.images(), size=(1024, 1024), mode="bilinear", align_corners=False)
    with torch.inference_mode():
        logits = merged_logits(network(images), (224, 224))
    assert golden.difference("logits", logits) < TOLERANCE


@pytest.mark.parametrize("size", [224, pytest.param(512, marks=pytest.mark.slow)])
def test_a_1024_pixel_sam_file_is_brought_to_the_adapters_image_size(parity_folder, tmp_path, size):
    adapter = save(tmp_path / "a.pth", tiny_adapters(listed(parity_folder, f"keys_hsam_vit_b_{size}")))
    sam = save(tmp_path / "sam.pth", listed(parity_folder, "keys_sam_tiny_1024_fake_checkpoint"))
    encoder = load(tmp_path, adapter, sam).encoder.state_dict()
    golden = GoldenFile(parity_folder / f"load_from_tiny_{size}.npz")
    compared = list(golden.meta["arrays"])
    assert len(compared) == 5
    for name in compared:
        assert golden.difference(name, encoder[name.replace("image_encoder.", "")]) < 1e-6


def test_the_old_file_format_of_torch_is_read_as_well(parity_folder, tmp_path):
    shapes = tiny_adapters(listed(parity_folder, "keys_samed_vit_b_512"))
    new = save(tmp_path / "new.pth", shapes)
    torch.save(torch.load(new, weights_only=True), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    old = read_official(tmp_path / "old.pth")
    assert all(torch.equal(old.state[key], tensor) for key, tensor in read_official(new).state.items())


def test_half_precision_files_become_float32(parity_folder, tmp_path):
    sam = save(tmp_path / "sam.pth", tiny_sam(parity_folder, 224))
    whole = torch.load(save(tmp_path / "a.pth", tiny_adapters(listed(parity_folder, "keys_samed_vit_b_512"))))
    torch.save({key: tensor.half() for key, tensor in whole.items()}, tmp_path / "a.pth")
    network = load(tmp_path, tmp_path / "a.pth", sam, image_size=224)
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32}
    key = "mask_decoder.iou_token.weight"
    assert torch.equal(network.head.state_dict()["decoder.iou_token"], whole[key].half().float())


def test_an_adapter_with_another_vit_is_refused_with_both_names(parity_folder, tmp_path):
    adapter = save(tmp_path / "a.pth", listed(parity_folder, "keys_samed_vit_b_512"))
    sam = save(tmp_path / "sam.pth", tiny_sam(parity_folder, 224))
    weights, encoder = read_official(adapter), read_official(sam)
    with pytest.raises(CheckpointError) as caught:
        network_from_official(weights, official_architecture(weights.found), encoder)
    assert "a.pth is made for SAM ViT-B, but sam.pth is an encoder of width 96 with 4 blocks" in str(caught.value)


def test_an_adapter_without_an_encoder_is_refused(parity_folder, tmp_path):
    weights = read_official(save(tmp_path / "a.pth", tiny_adapters(listed(parity_folder, "keys_samed_vit_b_512"))))
    with pytest.raises(CheckpointError, match="holds no encoder"):
        network_from_official(weights, official_architecture(weights.found))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"w_a": 3}, "rank 3 instead of rank 5"),
        ({"classes": 13}, "13 classes instead of 8 classes"),
        ({"name": "keys_hsam_vit_b_224"}, "224 pixels instead of 512 pixels"),
        ({"name": "keys_hsam_vit_l_224"}, "SAM ViT-L instead of SAM ViT-B"),
        ({"name": "keys_samed_vit_b_512"}, "SAMed instead of H-SAM"),
    ],
)
def test_a_file_that_is_not_what_the_catalog_describes_is_refused_with_both_sides(parity_folder, change, words):
    shapes = listed(parity_folder, change.get("name", "keys_hsam_vit_b_512"))
    for key in list(shapes):
        if "w_a" in change and key.startswith("w_a_"):
            shapes[key][0] = change["w_a"]
        if "w_a" in change and key.startswith("w_b_"):
            shapes[key][1] = change["w_a"]
    if "classes" in change:
        shapes["mask_decoder.mask_tokens.weight"][0] = change["classes"] + 1
    entry = load_catalog().find("hsam_synapse_10")
    with pytest.raises(CheckpointError) as caught:
        require_architecture(
            recognize(shaped(shapes), "file.pth"),
            entry.manifest.architecture,
            file="file.pth",
            wanted_by="the catalog's entry 'hsam_synapse_10'",
        )
    assert words in str(caught.value)
    assert "file.pth is " in str(caught.value)
    assert "'hsam_synapse_10'" in str(caught.value)


def test_another_image_size_than_the_files_is_refused(parity_folder):
    found = recognize(shaped(listed(parity_folder, "keys_hsam_vit_b_224")), "file")
    with pytest.raises(CheckpointError, match=r"made for 224 pixels .* not for 512"):
        official_architecture(found, image_size=512)


@pytest.mark.parametrize(
    "gone", ["mask_decoder2.mask_tokens.weight", "w_b_003", "prompt_encoder2.no_mask_embed.weight"]
)
def test_a_file_that_lacks_a_tensor_is_refused_by_its_name(parity_folder, tmp_path, gone):
    shapes = tiny_adapters(listed(parity_folder, "keys_hsam_vit_b_224"))
    del shapes[gone]
    shapes.pop(gone.replace("prompt_encoder2", "prompt_encoder"), None)
    adapter = save(tmp_path / "a.pth", shapes)
    sam = save(tmp_path / "sam.pth", tiny_sam(parity_folder, 224))
    with pytest.raises(CheckpointError, match=r"a\.pth .*(lacks|incomplete)"):
        load(tmp_path, adapter, sam)


def test_adapters_with_a_gap_are_refused(parity_folder):
    shapes = listed(parity_folder, "keys_samed_vit_b_512")
    del shapes["w_a_007"], shapes["w_b_007"]
    with pytest.raises(CheckpointError, match="not two per block without gaps"):
        recognize(shaped(shapes), "file")


@pytest.mark.parametrize("head", ["vit", "cnn", "linear"])
def test_a_head_without_its_encoder_is_told_as_such(parity_folder, head):
    with pytest.raises(CheckpointError, match="a decoder without the encoder"):
        recognize(shaped(listed(parity_folder, f"keys_autosam_{head}_head")), "head.pth")


def test_tensors_of_another_program_are_told_as_such():
    with pytest.raises(CheckpointError, match=r"holds 2 tensors \(conv1\.weight, fc\.bias, \.\.\.\), but is none of"):
        recognize(shaped({"conv1.weight": [64, 3, 7, 7], "fc.bias": [1000]}), "resnet.pth")


def test_a_file_without_tensors_is_told_as_such(tmp_path):
    torch.save({"epoch": 3, "loss": [0.1]}, tmp_path / "log.pth")
    with pytest.raises(CheckpointError, match="holds no named tensors"):
        read_official(tmp_path / "log.pth")


def test_a_file_of_the_catalogs_layout_gets_its_labels_and_a_warning(parity_folder):
    found = recognize(shaped(listed(parity_folder, "keys_hsam_vit_b_512")), "file")
    manifest = manifest_for(found, load_catalog(), name="epoch_299")
    assert [label.name for label in manifest.labels] == list(load_catalog().find("hsam_synapse_10").organs)
    assert manifest.intensity.window_hu == (-125.0, 275.0)
    assert "its layout is the same" in manifest.training["notes"][0]


def test_an_unknown_file_gets_general_labels_and_says_what_is_assumed(parity_folder):
    found = recognize(shaped(listed(parity_folder, "keys_samed_vit_b_512")), "file")
    manifest = manifest_for(found, load_catalog(), name="my run (3)")
    assert manifest.id == "my-run-3"
    assert [label.name for label in manifest.labels] == [f"class {n}" for n in range(1, 9)]
    assert len({label.color for label in manifest.labels}) == 8
    assert manifest.architecture.encoder.image_size == 512
    text = " ".join(manifest.training["notes"])
    assert all(words in text for words in ("class 1", "512 pixels are assumed", "gray values"))


def test_labels_of_the_user_are_taken_and_must_be_as_many(parity_folder):
    from model_files import KIDNEY, LIVER

    from HSAMSegmentLib.labels.label_set import LabelSet

    shapes = listed(parity_folder, "keys_hsam_vit_b_512")
    with pytest.raises(CheckpointError, match="has 8 classes, but 2 label names were given"):
        manifest_for(recognize(shaped(shapes), "f"), load_catalog(), name="x", labels=LabelSet((LIVER, KIDNEY)))
    shapes["mask_decoder.mask_tokens.weight"][0] = 3
    own = manifest_for(recognize(shaped(shapes), "f"), load_catalog(), name="x", labels=LabelSet((LIVER, KIDNEY)))
    assert [label.name for label in own.labels] == ["Liver", "Right kidney"]
