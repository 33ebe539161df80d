"""The compact encoder: maps at strides 16, 8, 4 and 2 for every size, and a small network."""

from __future__ import annotations

import pytest
import torch

from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.encoders.compact import CompactEncoder
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec


@pytest.fixture(scope="module")
def encoder() -> CompactEncoder:
    torch.manual_seed(0)
    encoder = CompactEncoder()
    encoder.initialize()
    return encoder.eval()


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (80, 48), (112, 144)])
def test_maps_come_at_strides_16_8_4_and_2_for_every_multiple_of_16(encoder, size):
    with torch.inference_mode():
        features = encoder(torch.rand(2, 3, *size))
    strides = [16, 8, 4, 2]
    channels = [encoder.out_chans, *encoder.skip_channels]
    maps = [features.embedding, *features.skips]
    assert [tuple(item.shape) for item in maps] == [
        (2, width, size[0] // stride, size[1] // stride) for width, stride in zip(channels, strides)
    ]


def test_a_slice_alone_gives_the_same_as_in_a_batch(encoder):
    images = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        together = encoder(images)
        alone = encoder(images[1:2])
    torch.testing.assert_close(together.embedding[1:2], alone.embedding, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.skips[2][1:2], alone.skips[2], atol=1e-5, rtol=1e-5)


def test_the_embedding_sees_the_whole_slice(encoder):
    images = torch.rand(1, 3, 128, 128)
    changed = images.clone()
    changed[..., :16, :16] = 0.0
    with torch.inference_mode():
        difference = (encoder(images).embedding - encoder(changed).embedding).abs().amax(dim=1)[0]
    assert float(difference[-1, -1]) > 0.0


def test_every_tensor_of_encoder_and_head_learns():
    torch.manual_seed(0)
    network = build_network(Architecture(EncoderSpec("compact", 64), "hsam", 3, form="paper", options={"mlp_dim": 64}))
    stages = network(torch.rand(2, 3, 64, 64)).stages
    sum(stage.square().mean() for stage in stages).backward()
    still = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert [name for name in still if "iou" not in name] == []


def test_it_has_between_three_and_five_million_parameters(encoder):
    assert 3e6 < sum(parameter.numel() for parameter in encoder.parameters()) < 5e6


def test_initializing_starts_from_features_of_moderate_size(encoder):
    with torch.inference_mode():
        features = encoder(torch.rand(2, 3, 64, 64))
    assert 0.1 < float(features.embedding.std()) < 10.0
