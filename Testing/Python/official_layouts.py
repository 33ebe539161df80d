"""Files in the layouts of the official ones, with the weights of the golden files: what `torch.save` made of them."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path

import torch
from parity_weights import fill_tensors

Shapes = dict[str, list[int]]
TINY_WIDTH, TINY_DEPTH, TINY_GLOBAL_BLOCKS = 96, 4, (1, 3)


def listed(folder: Path, name: str) -> Shapes:
    """Keys and shapes of an official file, from the parity folder."""
    return json.loads((folder / f"{name}.json").read_text())


def tiny_sam(folder: Path, image_size: int) -> Shapes:
    """A SAM checkpoint with the tiny encoder, made for another image size than the listed 1024."""
    side = image_size // 16
    shapes = listed(folder, "keys_sam_tiny_1024_fake_checkpoint")
    shapes["image_encoder.pos_embed"] = [1, side, side, TINY_WIDTH]
    for block in TINY_GLOBAL_BLOCKS:
        for axis in "hw":
            shapes[f"image_encoder.blocks.{block}.attn.rel_pos_{axis}"][0] = 2 * side - 1
    return shapes


def tiny_adapters(shapes: Shapes) -> Shapes:
    """An adapter file for the tiny encoder, from the listed one for ViT-B."""
    rank = shapes["w_a_000"][0]
    rest = {key: shape for key, shape in shapes.items() if not key.startswith(("w_a_", "w_b_"))}
    adapters: Shapes = {}
    for index in range(2 * TINY_DEPTH):
        adapters[f"w_a_{index:03d}"] = [rank, TINY_WIDTH]
        adapters[f"w_b_{index:03d}"] = [TINY_WIDTH, rank]
    return {**adapters, **rest}


def with_classes(shapes: Shapes, classes: int) -> Shapes:
    """The same adapter file for another number of foreground classes (listed: 8)."""
    changed = {}
    for key, shape in shapes.items():
        mask = re.search(r"hypernetworks_mlps2?\.(\d+)\.", key)
        if mask and int(mask[1]) > classes:
            continue
        follows = key.endswith("mask_tokens.weight") or "iou_prediction_head.layers.2" in key
        if follows:
            shape = [classes + 1, *shape[1:]]
        elif key.endswith("med_sel.0.weight"):
            shape = [1, classes + 1]
        changed[key] = shape
    return changed


def tiny_autosam(folder: Path, head: str) -> Shapes:
    """A whole model of AutoSAM with the tiny encoder."""
    encoder = {key: shape for key, shape in tiny_sam(folder, 1024).items() if key.startswith("image_encoder.")}
    return {**encoder, **listed(folder, f"keys_autosam_{head}_head")}


def save(path: Path, shapes: Shapes, prefix: str = "", wrapper: str = "") -> Path:
    """Fill by the rule of the golden files and save as the official scripts do."""
    state = {prefix + key: _filled(key, tuple(shape)) for key, shape in shapes.items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, path)
    return path


@lru_cache(maxsize=2000)
def _filled(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """One tensor of the fill rule; most of a test's time would go into drawing the same numbers again."""
    return fill_tensors({key: shape})[key]
