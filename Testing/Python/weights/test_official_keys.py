"""Every tensor of an official file finds its place here, or is known to be dead."""

from __future__ import annotations

import json

import pytest

from HSAMSegmentLib.models.building import HEAD_CLASSES
from HSAMSegmentLib.weights.convert.official_keys import initial_head_keys, map_official_keys

FILES = [
    ("hsam", "keys_hsam_vit_b_224", 8),
    ("hsam", "keys_hsam_vit_b_512", 8),
    ("hsam", "keys_hsam_vit_l_224", 8),
    ("samed", "keys_samed_vit_b_512", 8),
    ("autosam", "keys_autosam_vit_head", 3),
    ("cnn", "keys_autosam_cnn_head", 3),
    ("linear", "keys_autosam_linear_head", 3),
]
DEAD = {"hsam": "hsam", "samed": "samed", "autosam": "autosam_vit", "cnn": "autosam_cnn", "linear": "autosam_linear"}
EXCLUDED_PARTS = ("mask_tokens", "output_hypernetworks_mlps", "iou_prediction_head")


def _read(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def _head(name, num_classes=3):
    return HEAD_CLASSES[name](num_classes=num_classes)


@pytest.mark.parametrize(("head", "name", "classes"), FILES)
def test_an_official_file_fills_the_whole_head_with_tensors_of_the_right_shape(parity_folder, head, name, classes):
    shapes = _read(parity_folder, name)
    found = map_official_keys(head, shapes)
    ours = {key: list(tensor.shape) for key, tensor in _head(head, classes).state_dict().items()}
    assert {key: shapes[official] for key, official in found.head.items()} == ours
    assert found.unknown == ()


@pytest.mark.parametrize(("head", "name", "classes"), FILES)
def test_no_tensor_of_an_official_file_is_forgotten_or_counted_twice(parity_folder, head, name, classes):
    keys = list(_read(parity_folder, name))
    found = map_official_keys(head, keys)
    sorted_keys = [*found.head.values(), *found.encoder.values(), *found.adapters.values(), *found.dead]
    assert sorted(sorted_keys) == sorted(keys)


@pytest.mark.parametrize(("head", "name", "classes"), FILES)
def test_exactly_the_tensors_without_effect_are_dead(parity_folder, head, name, classes):
    found = map_official_keys(head, _read(parity_folder, name))
    expected = _read(parity_folder, "unused_keys")[DEAD[head]]
    if head == "hsam":
        expected = expected["224" if "224" in name else "512"]["no_effect_on_any_output"]
        said_twice = {
            "prompt_encoder.no_mask_embed.weight",
            "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        }
        assert set(found.dead) == set(expected) | said_twice
    else:
        assert set(found.dead) == set(expected["no_effect"])


def test_where_hsam_says_a_tensor_twice_the_second_counts_in_any_order():
    keys = ["prompt_encoder.no_mask_embed.weight", "prompt_encoder2.no_mask_embed.weight"]
    for order in (keys, keys[::-1]):
        found = map_official_keys("hsam", order)
        assert found.head == {"no_mask": keys[1]}
        assert found.dead == (keys[0],)


def test_adapters_are_told_apart_by_number_and_side(parity_folder):
    found = map_official_keys("hsam", _read(parity_folder, "keys_hsam_vit_l_224"))
    assert set(found.adapters) == {(index, side) for index in range(48) for side in "ab"}
    assert found.adapters[7, "b"] == "w_b_007"


def test_a_tensor_of_another_model_is_unknown():
    found = map_official_keys("samed", ["mask_decoder2.mask_tokens.weight", "mask_decoder.iou_token.weight", "epoch"])
    assert found.unknown == ("mask_decoder2.mask_tokens.weight", "epoch")
    assert found.head == {"decoder.iou_token": "mask_decoder.iou_token.weight"}


def test_a_sam_checkpoint_starts_hsam_with_what_the_official_transfer_takes(parity_folder):
    sam = _read(parity_folder, "keys_sam_tiny_1024_fake_checkpoint")
    taken = set(initial_head_keys("hsam", sam).values())
    live = {key for key in sam if key.startswith(("mask_decoder", "prompt_encoder.pe", "prompt_encoder.no_mask"))}
    assert taken == {key for key in live if not any(part in key for part in EXCLUDED_PARTS)}
    assert len(taken) > 60


def test_a_sam_checkpoint_starts_autosam_with_what_the_official_transfer_takes_and_its_positions(parity_folder):
    sam = _read(parity_folder, "keys_sam_tiny_1024_fake_checkpoint")
    taken = set(initial_head_keys("autosam", sam).values())
    official = _read(parity_folder, "autosam_checkpoint_transfer")["vit"]["taken"]
    live = {key for key in official if key.startswith("mask_decoder") and "hypernetworks_mlps.1" not in key}
    assert taken == live | {"prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"}


@pytest.mark.parametrize("head", ["hsam", "samed", "autosam", "cnn", "linear"])
def test_what_a_sam_checkpoint_starts_a_head_with_fits_its_shape(parity_folder, head):
    shapes = _read(parity_folder, "keys_sam_tiny_1024_fake_checkpoint")
    ours = _head(head).state_dict()
    for key, official in initial_head_keys(head, shapes).items():
        assert list(ours[key].shape) == shapes[official]
