"""The official whole-volume route, against the authors' own labels (parity case h)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_networks import golden_network
from parity_weights import GoldenFile
from reference_route import network_image, segment_stack, zoom_to

from HSAMSegmentLib.errors import CancelledError
from HSAMSegmentLib.inference.confidence import slice_evidence
from HSAMSegmentLib.preprocess.network_input import SliceFraming
from HSAMSegmentLib.preprocess.rules import SliceRule
from HSAMSegmentLib.runtime.progress import CancelToken


@pytest.fixture(scope="module")
def golden(parity_folder) -> GoldenFile:
    return GoldenFile(parity_folder / "hsam_volume_pipeline_512.npz")


@pytest.fixture(scope="module")
def network(parity_folder):
    return golden_network(parity_folder, GoldenFile(parity_folder / "hsam_tiny_512_b1.npz"), "hsam")


@pytest.fixture(scope="module")
def stack(golden) -> np.ndarray:
    return golden["volume_u8"].astype(np.float32) / 255.0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("direct512", {}),
        pytest.param("direct512_stage2", {"stages": "last"}, marks=pytest.mark.slow),
        pytest.param("via224", {"input_size": 224}, marks=pytest.mark.slow),
    ],
)
def test_labels_equal_the_official_ones_on_all_safe_pixels(golden, network, stack, name, options):
    labels = segment_stack(network, stack, **options)
    assert golden.mismatches_on_safe_pixels(f"{name}_labels", f"{name}_safe", torch.from_numpy(labels)) == 0
    assert np.mean(labels == golden[f"{name}_labels"]) > 0.9995


@pytest.mark.parametrize(("name", "input_size"), [("direct512", None), ("via224", 224)])
def test_the_network_input_equals_the_official_one(golden, stack, name, input_size):
    images = torch.from_numpy(np.stack([network_image(image, 512, input_size) for image in stack]))
    assert golden.difference(f"{name}_net_input", images) < 1e-6


def test_zooming_equals_the_official_zoom(golden, stack):
    zoomed = torch.from_numpy(zoom_to(stack[0], (512, 512), order=3))
    assert golden.difference("zoom_cubic_300x280_to_512", zoomed) < 1e-6
    rows = zoom_to(np.repeat(np.arange(512, dtype=np.int32)[:, None], 512, axis=1), (300, 280), order=0)
    np.testing.assert_array_equal(rows[:, 0], golden["zoom_nearest_rows"])
    np.testing.assert_array_equal(
        zoom_to(np.repeat(np.arange(512, dtype=np.int32)[None], 512, axis=0), (300, 280), order=0)[0],
        golden["zoom_nearest_cols"],
    )


def test_the_fast_route_gives_the_official_labels_too(golden, network, stack):
    framing = SliceFraming(SliceRule(), image_size=512, slice_shape=stack.shape[1:], pixel_spacing_mm=(1.0, 1.0))
    with torch.inference_mode():
        images = framing.images(torch.from_numpy(stack)).expand(-1, 3, -1, -1)
        stages = [framing.logits(stage) for stage in network(images).stages]
    labels = slice_evidence(stages).channels
    assert golden.mismatches_on_safe_pixels("direct512_labels", "direct512_safe", torch.from_numpy(labels)) == 0
    assert np.mean(labels == golden["direct512_labels"]) > 0.999


def test_cancel_is_answered_between_two_slices(network, stack):
    token = CancelToken()
    token.cancel()
    with pytest.raises(CancelledError):
        segment_stack(network, stack, cancel=token)
