"""A 1024-pixel SAM checkpoint at other image sizes, against what the official transfer makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from parity_weights import GoldenFile, assert_checksum, fill_tensors

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.models.encoders.sam_vit import SAM_SIZES, SamEncoder, fit_encoder_tensors, resize_encoder_tensors

TINY = {"embed_dim": 96, "depth": 4, "num_heads": 3, "global_attn_indexes": (1, 3)}
PREFIX = "image_encoder."


@pytest.fixture
def sam_tensors(parity_folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a SAM checkpoint of 1024 pixels, in the original layout, with a tiny encoder."""
    shapes = json.loads((parity_folder / "keys_sam_tiny_1024_fake_checkpoint.json").read_text())
    tensors = fill_tensors(shapes)
    assert_checksum(parity_folder, "fake_sam_tiny_1024", tensors)
    return {key: tensor for key, tensor in tensors.items() if key.startswith(PREFIX)}


@pytest.mark.parametrize("image_size", [224, 512])
def test_resized_tensors_are_those_of_the_official_transfer(
    parity_folder: Path, sam_tensors: dict[str, torch.Tensor], image_size: int
) -> None:
    golden = GoldenFile(parity_folder / f"load_from_tiny_{image_size}.npz")
    encoder = SamEncoder(image_size=image_size, **TINY)
    resized = fit_encoder_tensors(sam_tensors, encoder, PREFIX)
    compared = list(golden.meta["arrays"])
    assert len(compared) == 5
    for name in compared:
        key = name if name.startswith(PREFIX) else PREFIX + name
        assert golden.difference(name, resized[key]) < 1e-6, name
    changed = {key for key in resized if not torch.equal(resized[key], sam_tensors[key])}
    assert changed == {name if name.startswith(PREFIX) else PREFIX + name for name in compared}
    encoder.load_state_dict({key[len(PREFIX) :]: tensor for key, tensor in resized.items()})


def test_tensors_of_the_right_size_are_handed_on_untouched(sam_tensors: dict[str, torch.Tensor]) -> None:
    resized = fit_encoder_tensors(sam_tensors, SamEncoder(image_size=1024, **TINY), PREFIX)
    assert list(resized) == list(sam_tensors)
    assert all(resized[key] is tensor for key, tensor in sam_tensors.items())


@pytest.mark.parametrize("name", sorted(SAM_SIZES))
def test_every_published_encoder_fits_another_image_size_in_all_tensors(name: str) -> None:
    with torch.device("meta"):
        source = SamEncoder(image_size=1024, **SAM_SIZES[name])
        target = SamEncoder(image_size=320, **SAM_SIZES[name])
    resized = fit_encoder_tensors(source.state_dict(), target)
    assert {key: value.shape for key, value in resized.items()} == {
        key: value.shape for key, value in target.state_dict().items()
    }


@pytest.mark.parametrize(
    ("key", "shape"), [("pos_embed", (1, 64, 32, 8)), ("pos_embed", (64, 8)), ("blocks.1.attn.rel_pos_h", (126, 8))]
)
def test_a_tensor_of_an_impossible_shape_is_refused_by_name(key: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(CheckpointError, match=key):
        resize_encoder_tensors({key: torch.zeros(shape)}, grid_side=32, global_blocks=[1])
