"""H-SAM, end to end and at every station in between, against the official outputs (parity case b)."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
import torch.nn.functional as F
from golden_networks import golden_network
from parity_weights import GoldenFile

from HSAMSegmentLib.models.heads.hsam_decoders import token_map
from HSAMSegmentLib.models.interface import merged_logits

TOLERANCE = 2e-5
TOKEN_MAP_TOLERANCE = 1e-4  # its values are some tens
FILES = [
    "hsam_tiny_224_b1",
    "hsam_tiny_224_b2",
    "hsam_tiny_224_nc3",
    "hsam_tiny_512_b1",
    "hsam_tiny_512_b2",
    "hsam_tiny_512_nc1",
    pytest.param("hsam_vitb_224_b1", marks=pytest.mark.slow),
    pytest.param("hsam_vitb_512_b1", marks=pytest.mark.slow),
]
STATIONS = [
    "enc",
    "dec1_tokens",
    "dec1_keys",
    "token_map",
    "up_embed",
    "s1_low_res_logits",
    "class_weights",
    "dec2_src_in",
    "dec2_tokens",
    "dec2_keys",
    "dec2_up",
    "dec2_skip",
    "s2_low_res_logits",
    "s1_masks",
    "s2_masks",
    "s1_iou",
    "s2_iou",
]


def _channels_first(x):
    return x.permute(0, 3, 1, 2)


def _run(network, images):
    """All intermediate results in the layout of the golden files, by their names."""
    size, grid = images.shape[-1], images.shape[-1] // 16
    seen = {}

    def watch(module, name):
        return module.register_forward_hook(lambda _, inputs, output: seen.update({name: (inputs, output)}))

    head = network.head
    watched = {"1": head.decoder1, "2": head.decoder2, "transformer2": head.decoder2.transformer}
    watched["up2"] = head.decoder2.upscaling
    hooks = [watch(module, name) for name, module in watched.items()]
    with torch.no_grad():
        features = network.encode(images)
        logits = network.decode(features)
    # Without gradients the second decoder takes a way that has not all stations.
    network.decode(features)
    first, second = seen["1"][1], seen["2"][1]
    qualities = head.decoder1.quality(first), head.decoder2.quality(second)
    for hook in hooks:
        hook.remove()
    image_in = seen["transformer2"][0][1]
    stage1, stage2 = logits.stages
    stations = {
        "enc": features.embedding,
        "dec1_tokens": torch.cat([first.quality_token[:, None], first.tokens], dim=1),
        "dec1_keys": first.image,
        "token_map": token_map(first.tokens, first.image),
        "up_embed": _channels_first(first.upscaled),
        "s1_low_res_logits": stage1,
        "class_weights": seen["2"][0][3],
        "dec2_src_in": image_in.transpose(1, 2).unflatten(2, (grid, grid)),
        "dec2_tokens": second.tokens,
        "dec2_keys": second.image,
        "dec2_up": _channels_first(seen["up2"][1]),
        "dec2_skip": _channels_first(second.upscaled),
        "s2_low_res_logits": stage2,
        "s1_masks": F.interpolate(stage1, size=(size, size), mode="bilinear", align_corners=False),
        "s2_masks": stage2,
        "s1_iou": qualities[0],
        "s2_iou": qualities[1],
        "labels_stage2": stage2.argmax(dim=1),
        "labels_avg": merged_logits(logits, (size, size)).argmax(dim=1),
    }
    return {name: value.detach() for name, value in stations.items()}


@pytest.fixture(scope="module")
def run(parity_folder):
    """Name of a golden file -> the file and our results, computed once."""

    @lru_cache
    def results(name):
        golden = GoldenFile(parity_folder / f"{name}.npz")
        return golden, _run(golden_network(parity_folder, golden, "hsam"), golden.images())

    return results


@pytest.fixture(scope="module", params=FILES)
def case(request, run):
    return run(request.param)


def test_every_station_is_official(case):
    golden, ours = case
    differences = {name: golden.difference(name, ours[name]) for name in STATIONS}
    limits = {name: TOKEN_MAP_TOLERANCE if name == "token_map" else TOLERANCE for name in STATIONS}
    assert {name: value for name, value in differences.items() if value >= limits[name]} == {}


@pytest.mark.parametrize("result", ["stage2", "avg"])
def test_every_pixel_that_is_no_near_tie_has_the_official_label(case, result):
    golden, ours = case
    assert golden.mismatches_on_safe_pixels(f"labels_{result}", f"safe_{result}", ours[f"labels_{result}"]) == 0


@pytest.mark.parametrize("size", [224, 512])
def test_an_image_has_the_same_official_logits_in_a_batch(run, size):
    single, _ = run(f"hsam_tiny_{size}_b1")
    _, pair = run(f"hsam_tiny_{size}_b2")
    for name in ("s1_low_res_logits", "s2_low_res_logits"):
        assert single.difference(name, pair[name][:1]) < TOLERANCE
