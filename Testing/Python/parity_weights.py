"""The weights of the golden files, each a function of its key and its shape (parity/README.md, section 1)."""

from __future__ import annotations

import hashlib
import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

TOKEN_KEYS = ("mask_tokens", "iou_token", "point_embeddings", "no_mask_embed", "not_a_point_embed")


def fill_value(key: str, shape: Sequence[int]) -> np.ndarray:
    """The float32 values that the fill rule gives to the tensor `key` (plain model key) of this shape."""
    key = key.replace("prompt_encoder2.", "prompt_encoder.")
    seed = zlib.crc32(key.encode("utf-8"))
    x = np.asarray(np.random.RandomState(seed).standard_normal(tuple(shape)), dtype=np.float32)
    if "positional_encoding_gaussian_matrix" in key:
        return x
    if len(shape) == 1 and not _has_own_factor(key):
        return np.float32(1) + np.float32(0.1) * x if key.endswith("weight") else np.float32(0.05) * x
    return x * _factor(key, shape)


def fill_tensors(shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """A state dict filled by the rule, from its keys and shapes."""
    return {key: torch.from_numpy(fill_value(key, shape)) for key, shape in shapes.items()}


def fill_state_dict(module: nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    """Fill every floating tensor of `module` by its key with `prefix` in front, and return what was loaded.

    An encoder alone is filled with the prefix "image_encoder.".
    """
    own = module.state_dict()
    shapes = {prefix + key: tensor.shape for key, tensor in own.items() if tensor.is_floating_point()}
    filled = fill_tensors(shapes)
    result = module.load_state_dict({key[len(prefix) :]: value for key, value in filled.items()}, strict=False)
    if result.unexpected_keys or any(own[key].is_floating_point() for key in result.missing_keys):
        raise AssertionError(f"the fill rule did not reach every tensor: {result}")
    return filled


def checksum(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Sums and SHA-256 of a state dict in the form of weight_checksums.json."""
    digest, count, total, absolute = hashlib.sha256(), 0, 0.0, 0.0
    for key in sorted(tensors):
        values = np.ascontiguousarray(tensors[key].detach().cpu().numpy(), dtype="<f4")
        digest.update(values.tobytes())
        count += values.size
        total += float(values.sum(dtype=np.float64))
        absolute += float(np.abs(values).sum(dtype=np.float64))
    return {
        "n_keys": len(tensors),
        "n_values": count,
        "sum": total,
        "abs_sum": absolute,
        "sha256": digest.hexdigest(),
    }


def assert_checksum(folder: Path, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Fail unless `tensors` are, to the bit, those that the golden file `name` was made with."""
    expected = json.loads((folder / "weight_checksums.json").read_text())[name]
    found = checksum(tensors)
    for item in ("n_keys", "n_values", "sha256"):
        assert found[item] == expected[item], f"{name}: {item} is {found[item]}, the golden file has {expected[item]}"


class GoldenFile:
    """One `.npz` of the parity folder: arrays, and which part of the complete tensor each of them is."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as data:
            self._arrays = {key: data[key] for key in data.files if key != "meta_json"}
            self.meta: dict[str, Any] = json.loads(str(data["meta_json"]))

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def images(self, name: str = "image_u8") -> torch.Tensor:
        """The network input [B, 3, rows, columns] in [0, 1] that the stored bytes stand for."""
        values = torch.from_numpy(self._arrays[name])
        if values.shape[-1] != 3:
            values = values[..., None].expand(*values.shape, 3)
        if values.ndim == 3:
            values = values[None]
        values = values.permute(0, 3, 1, 2)
        return values.to(torch.float32).contiguous() / 255

    def same_part(self, name: str, complete: torch.Tensor) -> np.ndarray:
        """Cut from our complete tensor the part that the golden file stores of its own."""
        entry = self.meta["arrays"][name]
        values = complete.detach().cpu().numpy()
        if entry["index"] == "full":
            return values
        assert list(values.shape) == entry["full_shape"], f"{name}: {values.shape}, golden {entry['full_shape']}"
        steps = re.findall(r"(\d+)::(\d+)", entry["index"])
        return values[tuple(slice(int(start), None, int(step)) for start, step in steps)]

    def difference(self, name: str, complete: torch.Tensor) -> float:
        """Largest absolute difference between our complete tensor and what is stored of the golden one."""
        part = self.same_part(name, complete)
        golden = self._arrays[name]
        assert part.shape == golden.shape, f"{name}: {part.shape}, golden {golden.shape}"
        return float(np.abs(part.astype(np.float64) - golden.astype(np.float64)).max())

    def mismatches_on_safe_pixels(self, labels_name: str, safe_name: str, labels: torch.Tensor) -> int:
        """How many pixels whose golden label is not a near tie got another label from us; must be 0."""
        golden = self._arrays[labels_name]
        safe = np.unpackbits(self._arrays[safe_name])[: golden.size].reshape(golden.shape).astype(bool)
        return int(np.count_nonzero((labels.detach().cpu().numpy() != golden) & safe))


def _has_own_factor(key: str) -> bool:
    return "rel_pos_" in key or "pos_embed" in key or any(part in key for part in TOKEN_KEYS)


def _factor(key: str, shape: Sequence[int]) -> np.float32:
    if "rel_pos_" in key:
        return np.float32(0.2)
    if "pos_embed" in key:
        return np.float32(0.1)
    if any(part in key for part in TOKEN_KEYS):
        return np.float32(0.5)
    if len(shape) == 4:
        return np.float32(math.sqrt(2) / math.sqrt(math.prod(shape[1:])))
    return np.float32(1 / math.sqrt(shape[1]))
