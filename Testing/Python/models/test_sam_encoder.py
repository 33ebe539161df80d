"""SAM's image encoder against the golden outputs of the official one, and what the rest of the program relies on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from parity_weights import GoldenFile, assert_checksum, fill_state_dict

from HSAMSegmentLib.models.encoders.sam_vit import SAM_SIZES, SamEncoder

TOLERANCE = 2e-5
TINY = {"embed_dim": 96, "depth": 4, "num_heads": 3, "global_attn_indexes": (1, 3)}


def tiny_encoder(image_size: int) -> SamEncoder:
    encoder = SamEncoder(image_size=image_size, **TINY).eval()
    fill_state_dict(encoder, "image_encoder.")
    return encoder


@torch.inference_mode()
def assert_like_golden(encoder: SamEncoder, golden: GoldenFile) -> None:
    outputs = {}
    encoder.patch_embed.register_forward_hook(lambda _m, _i, output: outputs.update(patch_embed=output))
    for index, block in enumerate(encoder.blocks):
        block.register_forward_hook(lambda _m, _i, output, name=f"block{index}_out": outputs.update({name: output}))
    outputs["embedding"] = encoder(golden.images())
    compared = [name for name in golden.meta["arrays"] if name != "image_u8"]
    assert len(compared) >= 6
    for name in compared:
        assert golden.difference(name, outputs[name]) < TOLERANCE, name


@pytest.mark.parametrize("image_size", [224, 512, 1024])
def test_tiny_encoder_reproduces_every_golden_array(parity_folder: Path, image_size: int) -> None:
    name = f"sam_encoder_tiny_{image_size}"
    encoder = SamEncoder(image_size=image_size, **TINY).eval()
    assert_checksum(parity_folder, name, fill_state_dict(encoder, "image_encoder."))
    assert_like_golden(encoder, GoldenFile(parity_folder / f"{name}.npz"))


@pytest.mark.slow
def test_vit_b_encoder_reproduces_every_golden_array(parity_folder: Path) -> None:
    encoder = SamEncoder(image_size=512, **SAM_SIZES["sam_vit_b"]).eval()
    filled = fill_state_dict(encoder, "image_encoder.")
    assert_checksum(parity_folder, "sam_encoder_vitb_512", filled)
    assert_like_golden(encoder, GoldenFile(parity_folder / "sam_encoder_vitb_512.npz"))


def test_tensors_are_named_and_shaped_as_in_a_sam_checkpoint(parity_folder: Path) -> None:
    official = json.loads((parity_folder / "keys_sam_tiny_1024_fake_checkpoint.json").read_text())
    expected = {key: shape for key, shape in official.items() if key.startswith("image_encoder.")}
    state = SamEncoder(image_size=1024, **TINY).state_dict()
    assert {f"image_encoder.{key}": list(value.shape) for key, value in state.items()} == expected


def test_an_image_has_the_same_embedding_alone_and_in_a_batch() -> None:
    encoder = tiny_encoder(288)
    images = torch.rand(3, 3, 288, 288, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        together = encoder(images)
        alone = torch.cat([encoder(image[None]) for image in images])
    assert together.shape == (3, 256, 18, 18)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("blocks", [0, 2, 4])
def test_prefix_and_suffix_together_are_the_encoder(blocks: int) -> None:
    encoder = tiny_encoder(240)
    images = torch.rand(2, 3, 240, 240, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        tokens = encoder.forward_prefix(images, blocks)
        assert tokens.shape == (2, 15, 15, 96)
        torch.testing.assert_close(encoder.forward_suffix(tokens, blocks), encoder(images), atol=0, rtol=0)


def test_an_image_of_another_size_is_refused_with_both_sizes() -> None:
    with pytest.raises(ValueError, match="48 x 48 pixels, not for 64 x 48"):
        SamEncoder(image_size=48, **TINY)(torch.zeros(1, 3, 64, 48))


def test_bfloat16_autocast_stays_close_to_full_precision() -> None:
    encoder = tiny_encoder(240)
    images = torch.rand(1, 3, 240, 240, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        exact = encoder(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = encoder(images)
    assert torch.nn.functional.cosine_similarity(exact.flatten(), rounded.float().flatten(), dim=0) > 0.999
