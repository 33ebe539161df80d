"""Adapters on q and v: where they act, what stays frozen, and how official files name them."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from parity_weights import GoldenFile, fill_state_dict, fill_tensors

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.models import lora
from HSAMSegmentLib.models.encoders.sam_vit import SAM_SIZES, SamEncoder

TINY = {"embed_dim": 96, "depth": 4, "num_heads": 3, "global_attn_indexes": (1, 3)}


@pytest.fixture
def encoder() -> SamEncoder:
    encoder = SamEncoder(image_size=240, **TINY).eval()
    fill_state_dict(encoder, "image_encoder.")
    return encoder


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(1, 3, 240, 240, generator=torch.Generator().manual_seed(1))


def fill_adapters(encoder: SamEncoder) -> None:
    official = lora.adapters_to_official(encoder)
    lora.adapters_from_official(encoder, fill_tensors({name: tensor.shape for name, tensor in official.items()}))


@pytest.mark.parametrize(
    ("name", "rank", "size"), [("hsam_tiny_224_b2", 5, 224), ("hsam_tiny_512_b2", 5, 512), ("samed_tiny_512", 4, 512)]
)
def test_adapted_encoder_reproduces_the_golden_embedding(parity_folder: Path, name: str, rank: int, size: int) -> None:
    adapted = SamEncoder(image_size=size, **TINY).eval()
    fill_state_dict(adapted, "image_encoder.")
    lora.attach_lora(adapted, rank=rank)
    fill_adapters(adapted)
    golden = GoldenFile(parity_folder / f"{name}.npz")
    with torch.inference_mode():
        assert golden.difference("enc", adapted(golden.images())) < 2e-5


def test_fresh_adapters_change_nothing_and_alone_are_trainable(encoder: SamEncoder, images: torch.Tensor) -> None:
    before = encoder(images).detach()
    lora.attach_lora(encoder, rank=5)
    after = encoder(images)
    torch.testing.assert_close(after, before, atol=2e-6, rtol=0)
    trainable = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    assert len(trainable) == 4 * 4
    assert all(".lora_" in name for name in trainable)
    after.square().mean().backward()
    assert encoder.blocks[0].attn.qkv.lora_v_up.grad.abs().max() > 0
    assert encoder.blocks[0].attn.qkv.weight.grad is None


def test_initial_values_follow_the_rule_of_the_official_adapters(encoder: SamEncoder) -> None:
    lora.attach_lora(encoder, rank=5)
    bound = 96**-0.5
    for _, qkv in lora.adapted_blocks(encoder):
        assert qkv.lora_q_up.abs().max() == 0
        assert bound / 2 < qkv.lora_q_down.abs().max() <= bound
        assert not torch.equal(qkv.lora_q_down, qkv.lora_v_down)


def test_only_the_last_blocks_are_adapted_on_request(encoder: SamEncoder, images: torch.Tensor) -> None:
    untouched = copy.deepcopy(encoder)
    lora.attach_lora(encoder, rank=3, last_blocks=2)
    fill_adapters(encoder)
    first = lora.first_adapted_block(encoder)
    assert first == 2
    with torch.inference_mode():
        assert torch.equal(encoder.forward_prefix(images, first), untouched.forward_prefix(images, first))
        assert not torch.allclose(encoder(images), untouched(images), atol=1e-3)
    assert lora.official_adapter_keys(encoder)["w_a_003"] == "blocks.3.attn.qkv.lora_v_down"


@pytest.mark.parametrize("size", [224, 240])
def test_merging_gives_the_same_embedding_with_and_without_padding(size: int) -> None:
    adapted = SamEncoder(image_size=size, **TINY).eval()
    fill_state_dict(adapted, "image_encoder.")
    lora.attach_lora(adapted, rank=5)
    fill_adapters(adapted)
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = adapted(images)
        lora.merge_lora(adapted)
        torch.testing.assert_close(adapted(images), expected, atol=2e-5, rtol=0)
    assert lora.first_adapted_block(adapted) is None
    assert not any("lora" in key for key in adapted.state_dict())


@pytest.mark.parametrize(
    ("file", "size", "rank"),
    [
        ("keys_hsam_vit_b_512", "sam_vit_b", 5),
        ("keys_hsam_vit_l_224", "sam_vit_l", 5),
        ("keys_samed_vit_b_512", "sam_vit_b", 4),
    ],
)
def test_official_names_and_shapes_are_those_of_official_files(
    parity_folder: Path, file: str, size: str, rank: int
) -> None:
    official = json.loads((parity_folder / f"{file}.json").read_text())
    expected = {key: tuple(shape) for key, shape in official.items() if key.startswith("w_")}
    with torch.device("meta"):
        encoder = SamEncoder(image_size=224, **SAM_SIZES[size])
    lora.attach_lora(encoder, rank=rank)
    assert {key: tuple(value.shape) for key, value in lora.adapters_to_official(encoder).items()} == expected


def test_adapters_of_another_rank_or_encoder_are_refused_and_change_nothing(encoder: SamEncoder) -> None:
    lora.attach_lora(encoder, rank=5)
    before = {key: value.clone() for key, value in lora.adapters_to_official(encoder).items()}
    other_rank = {key: torch.ones(4, 96) if "_a_" in key else torch.ones(96, 4) for key in before}
    with pytest.raises(CheckpointError, match=r"\(4, 96\), the model needs \(5, 96\)"):
        lora.adapters_from_official(encoder, other_rank)
    with pytest.raises(CheckpointError, match="has 4 adapter tensors, the encoder needs 16"):
        lora.adapters_from_official(encoder, {key: before[key] for key in list(before)[:4]})
    assert all(torch.equal(value, before[key]) for key, value in lora.adapters_to_official(encoder).items())


@pytest.mark.parametrize(("rank", "blocks"), [(0, None), (5, 0), (5, 5)])
def test_impossible_adapters_are_refused(encoder: SamEncoder, rank: int, blocks: int | None) -> None:
    with pytest.raises(ValueError, match="not possible"):
        lora.attach_lora(encoder, rank=rank, last_blocks=blocks)
