"""Networks of ours, filled by the rule of the golden files through the names of official files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from parity_weights import GoldenFile, fill_value

from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.models.lora import official_adapter_keys
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.weights.convert.official_keys import map_official_keys

KEY_FILES = {
    "hsam": "keys_hsam_vit_b_224",
    "samed": "keys_samed_vit_b_512",
    "autosam": "keys_autosam_vit_head",
    "cnn": "keys_autosam_cnn_head",
    "linear": "keys_autosam_linear_head",
}


def golden_architecture(golden: GoldenFile, head: str) -> Architecture:
    """What the network behind a golden file looks like; SAM sizes other than ViT-B's are given as options."""
    config = golden.meta["config"]
    names = {"encoder_embed_dim": "embed_dim", "encoder_depth": "depth", "encoder_num_heads": "num_heads"}
    options: dict[str, Any] = {ours: config[theirs] for theirs, ours in names.items()}
    options["global_attn_indexes"] = config["encoder_global_attn_indexes"]
    classes = golden.meta["num_classes"]
    with_adapters = head in ("hsam", "samed")
    return Architecture(
        encoder=EncoderSpec("custom", golden.meta["img_size"] if with_adapters else 1024, options),
        head=head,
        num_classes=classes if with_adapters else classes - 1,
        form="released" if head == "hsam" else "",
        lora_rank=golden.meta["rank"] if with_adapters else 0,
    )


def official_names(folder: Path, head: str, network: SegmentationNetwork) -> dict[str, str]:
    """Our key of every tensor of the network -> its official key."""
    listed = map_official_keys(head, json.loads((folder / f"{KEY_FILES[head]}.json").read_text()))
    names = {f"head.{ours}": official for ours, official in listed.head.items()}
    names.update({f"encoder.{key}": f"image_encoder.{key}" for key in network.encoder.state_dict()})
    names.update({f"encoder.{ours}": official for official, ours in official_adapter_keys(network.encoder).items()})
    return names


def golden_network(folder: Path, golden: GoldenFile, head: str) -> SegmentationNetwork:
    """The network behind a golden file, in evaluation mode."""
    network = build_network(golden_architecture(golden, head)).eval()
    names = official_names(folder, head, network)
    own = network.state_dict()
    filled = {key: torch.from_numpy(fill_value(names[key], tensor.shape)) for key, tensor in own.items()}
    network.load_state_dict(filled)
    return network
