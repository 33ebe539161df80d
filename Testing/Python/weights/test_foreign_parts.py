"""A SAM checkpoint with parts that this program would drop is refused, and they are named."""

from __future__ import annotations

import pytest
import torch
from official_layouts import tiny_sam

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.weights.catalog import Catalog
from HSAMSegmentLib.weights.store import Store

FOREIGN = {
    "adapters": "image_encoder.blocks.0.MLP_Adapter.D_fc1.weight",
    "space adapters": "image_encoder.blocks.3.Space_Adapter.D_fc1.bias",
    "LoRA in other names": "image_encoder.blocks.1.attn.qkv.linear_a_q.weight",
    "prompt tokens": "image_encoder.blocks.1.prompt_tokens",
    "a channel reducer": "image_encoder.neck.channel_attention.0.weight",
    "a head of its own": "classifier.fc.weight",
}


@pytest.fixture
def checkpoint(parity_folder):
    return {name: torch.zeros(shape) for name, shape in tiny_sam(parity_folder, 512).items()}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", catalog=Catalog(()), builtin=tmp_path / "none")


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("part", sorted(FOREIGN))
def test_parts_that_would_be_dropped_are_refused_by_name(checkpoint, store, tmp_path, part, wrapped):
    state = {**checkpoint, FOREIGN[part]: torch.zeros(2, 2)}
    torch.save({"model": state, "epoch": 3} if wrapped else state, tmp_path / "tuned.pth")
    with pytest.raises(CheckpointError, match=r"adapters or other parts") as refusal:
        store.import_file(tmp_path / "tuned.pth")
    assert FOREIGN[part].rsplit(".", 1)[-1] in str(refusal.value)
    assert store.models() == []


def test_the_plain_checkpoint_is_imported(checkpoint, store, tmp_path):
    torch.save(checkpoint, tmp_path / "plain.pth")
    assert store.import_file(tmp_path / "plain.pth").id == "plain"
