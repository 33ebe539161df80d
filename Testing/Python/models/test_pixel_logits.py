"""The last doubling of resolution and the reading of masks in one pass, against taking the long way."""

from __future__ import annotations

import pytest
import torch

from HSAMSegmentLib.models.heads.hsam_decoders import RefiningDecoder, upscaled_logits
from HSAMSegmentLib.models.heads.sam_decoder import UpscalingStep


@pytest.mark.parametrize("shape", [(1, 3, 5), (2, 96, 80)])
def test_it_is_the_step_and_the_classifiers_to_rounding(shape):
    torch.manual_seed(0)
    step = UpscalingStep(in_channels=12, out_channels=6, norm=True)
    with torch.no_grad():
        for parameter in step.norm.parameters():
            parameter.normal_()
        x, classifiers = torch.randn(*shape, 12), torch.randn(shape[0], 4, 6)
        wanted = torch.einsum("btc,bhwc->bthw", classifiers, step(x))
        found = upscaled_logits(step, x, classifiers)
    assert found.shape == (shape[0], 4, 2 * shape[1], 2 * shape[2])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-5)


def test_under_autocast_it_stays_in_float32():
    torch.manual_seed(0)
    step = UpscalingStep(in_channels=12, out_channels=6, norm=True)
    x, classifiers = torch.randn(1, 7, 9, 12).bfloat16(), torch.randn(1, 4, 6).bfloat16()
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = upscaled_logits(step, x, classifiers)
        wanted = torch.einsum("btc,bhwc->bthw", classifiers.float(), step(x.float()))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("skip_channels", [(), (5, 4), (5, 4, 3), (5, 4, 3, 2)])
def test_the_second_decoder_gives_the_same_with_and_without_gradients(skip_channels):
    torch.manual_seed(0)
    decoder = RefiningDecoder(num_masks=3, embed_dim=32, num_heads=2, mlp_dim=16, skip_channels=skip_channels).eval()
    given = (torch.randn(2, 24, 32), torch.randn(1, 24, 32), (4, 6), torch.rand(2, 3, 24), torch.randn(2, 16, 24, 4))
    skips = [torch.randn(2, channels, 4 * 2**i, 6 * 2**i) for i, channels in enumerate(skip_channels, start=1)]
    wanted = decoder.logits(*given, skips)
    assert wanted.requires_grad
    with torch.no_grad():
        found = decoder.logits(*given, skips)
    torch.testing.assert_close(found, wanted.detach(), rtol=1e-4, atol=1e-4)
