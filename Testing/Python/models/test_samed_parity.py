"""SAMed's head against the official outputs (parity case e)."""

from __future__ import annotations

import pytest
import torch
from golden_networks import golden_network
from parity_weights import GoldenFile

from HSAMSegmentLib.models.interface import merged_logits

TOLERANCE = 2e-5


@pytest.fixture(scope="module", params=["samed_tiny_224", "samed_tiny_512"])
def case(request, parity_folder):
    """A golden file, our encoder's embedding of its images, and our network."""
    golden = GoldenFile(parity_folder / f"{request.param}.npz")
    network = golden_network(parity_folder, golden, "samed")
    with torch.inference_mode():
        return golden, network.encode(golden.images()), network


def test_the_adapted_encoder_is_official(case):
    golden, features, _ = case
    assert golden.difference("enc", features.embedding) < TOLERANCE


def test_the_decoder_is_official(case):
    golden, features, network = case
    outputs = []
    hook = network.head.decoder.register_forward_hook(lambda *call: outputs.append(call[2]))
    with torch.inference_mode(), hook:
        (logits,) = network.decode(features).stages
        quality = network.head.decoder.quality(outputs[0])
    tokens = torch.cat([outputs[0].quality_token[:, None], outputs[0].tokens], dim=1)
    assert golden.difference("dec_tokens", tokens) < TOLERANCE
    assert golden.difference("low_res_logits", logits) < TOLERANCE
    assert golden.difference("iou", quality) < TOLERANCE


def test_masks_and_labels_at_image_size_are_official(case):
    golden, features, network = case
    size = golden.meta["img_size"]
    with torch.inference_mode():
        masks = merged_logits(network.decode(features), (size, size))
    assert golden.difference("masks", masks) < TOLERANCE
    assert golden.mismatches_on_safe_pixels("labels", "safe", masks.argmax(dim=1)) == 0
