"""Our layers of SAM's encoder compute what those of the package segment-anything compute, bit by bit."""

from __future__ import annotations

import pytest
import torch
from segment_anything_package import sam_part

from HSAMSegmentLib.models.encoders.sam_layers import ChannelNorm, GeluMlp, PatchProjection

PAIRS = {
    "patch projection": (
        lambda: PatchProjection(16, 24),
        lambda: sam_part("image_encoder", "PatchEmbed")(kernel_size=(16, 16), stride=(16, 16), embed_dim=24),
        (2, 3, 64, 48),
    ),
    "perceptron": (lambda: GeluMlp(24, 96), lambda: sam_part("common", "MLPBlock")(24, 96), (2, 5, 7, 24)),
    "normalization": (lambda: ChannelNorm(24), lambda: sam_part("common", "LayerNorm2d")(24), (2, 24, 5, 7)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_layer_has_the_tensors_and_the_numbers_of_the_package(name, one_thread):
    make_ours, make_theirs, shape = PAIRS[name]
    theirs, ours = make_theirs(), make_ours()
    generator = torch.Generator().manual_seed(1)
    state = {key: torch.randn(value.shape, generator=generator) for key, value in theirs.state_dict().items()}
    theirs.load_state_dict(state)
    ours.load_state_dict(state)
    x = torch.randn(shape, generator=generator)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


def test_a_normalized_map_has_mean_zero_and_variance_one_at_each_position():
    x = 5 + 3 * torch.randn(2, 32, 4, 4, generator=torch.Generator().manual_seed(2))
    y = ChannelNorm(32)(x).detach()
    assert torch.allclose(y.mean(dim=1), torch.zeros(2, 4, 4), atol=1e-5)
    assert torch.allclose(y.var(dim=1, unbiased=False), torch.ones(2, 4, 4), atol=1e-4)
