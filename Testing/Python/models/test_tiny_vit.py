"""MobileSAM's encoder against a plain one, and against numbers that the official implementation gave."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from parity_weights import fill_state_dict
from torch import Tensor, nn

from HSAMSegmentLib.models.encoders.tiny_vit import ConvNorm, TinyViT, WindowAttention

OFFICIAL_EMBEDDING = """
    0.28101 0.25693 0.29059 0.3254 1.04092 1.25127 0.01409 0.1718 -0.0202 -0.33979 -0.40077 0.12203
    -0.83972 -0.27169 -0.57873 -0.40217 -0.44952 -0.42341 -2.15837 -2.35853 -2.11614 -1.86464 -1.64705 -1.6396
"""
"""Every 64th channel, 28th row from 7 and 30th column from 9 of the embedding that the encoder of
ChaoningZhang/MobileSAM (tiny_vit_sam.py, float32, CPU) gave for `filled_encoder(1024)` and `random_image(1024)`."""


def filled_encoder(image_size: int) -> TinyViT:
    encoder = TinyViT(image_size=image_size).eval()
    fill_state_dict(encoder, "image_encoder.")
    for name, buffer in encoder.named_buffers():
        if name.endswith("running_var"):
            buffer.abs_().add_(0.5)
        elif name.endswith("running_mean"):
            buffer.mul_(0.1)
    return encoder


def random_image(image_size: int) -> Tensor:
    values = np.random.RandomState(5).rand(1, 3, image_size, image_size)
    return torch.from_numpy(values.astype(np.float32))


def plain_window_attention(module: WindowAttention, x: Tensor) -> Tensor:
    """The definition: windows filled up with zeros before the normalization, every token computed."""
    _, rows, columns, dim = x.shape
    side, heads = module.window_size, module.num_heads
    padded = nn.functional.pad(x, (0, 0, 0, -columns % side, 0, -rows % side))
    result = torch.zeros_like(padded)
    row = torch.arange(side).repeat_interleave(side)
    column = torch.arange(side).repeat(side)
    apart = (row[:, None] - row).abs() * side + (column[:, None] - column).abs()
    for top in range(0, padded.shape[1], side):
        for left in range(0, padded.shape[2], side):
            window = padded[:, top : top + side, left : left + side].flatten(1, 2)
            q, k, v = module.qkv(module.norm(window)).view(len(x), side**2, heads, -1).transpose(1, 2).chunk(3, dim=-1)
            logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + module.attention_biases[:, apart]
            joined = (logits.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
            result[:, top : top + side, left : left + side] = module.proj(joined).view(len(x), side, side, dim)
    return result[:, :rows, :columns]


@pytest.mark.parametrize(("rows", "columns", "side"), [(7, 7, 7), (3, 3, 7), (16, 16, 7), (20, 9, 14), (28, 28, 14)])
def test_windows_of_every_filling_give_the_numbers_of_the_definition(rows: int, columns: int, side: int) -> None:
    module = WindowAttention(24, 3, side)
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    x = torch.randn(2, rows, columns, 24, generator=generator)
    with torch.inference_mode():
        torch.testing.assert_close(module(x), plain_window_attention(module, x), atol=2e-5, rtol=1e-5)


def test_convolution_and_normalization_are_one_outside_of_training() -> None:
    module = ConvNorm(8, 12, 3, stride=2)
    module.bn.running_mean.normal_()
    module.bn.running_var.uniform_(0.5, 2)
    nn.init.normal_(module.bn.weight)
    x = torch.randn(2, 8, 9, 9)
    module.eval()
    with torch.inference_mode():
        torch.testing.assert_close(module(x), module.bn(module.c(x)), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_embedding_at_1024_pixels_is_that_of_the_official_implementation() -> None:
    expected = torch.tensor([float(value) for value in OFFICIAL_EMBEDDING.split()])
    with torch.inference_mode():
        embedding = filled_encoder(1024)(random_image(1024))
    assert embedding.shape == (1, 256, 64, 64)
    torch.testing.assert_close(embedding[0, ::64, 7::28, 9::30].flatten(), expected, atol=3e-5, rtol=0)


@pytest.mark.parametrize("image_size", [48, 240])
def test_other_image_sizes_work_with_the_same_weights(image_size: int) -> None:
    encoder = filled_encoder(image_size)
    with torch.inference_mode():
        assert encoder(random_image(image_size)).shape == (1, 256, image_size // 16, image_size // 16)
    encoder.load_state_dict(TinyViT(image_size=1024).state_dict())


def test_an_image_has_the_same_embedding_alone_and_in_a_batch() -> None:
    encoder = filled_encoder(112)
    images = torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        alone = torch.cat([encoder(image[None]) for image in images])
        torch.testing.assert_close(encoder(images), alone, atol=2e-5, rtol=0)


def test_every_weight_learns() -> None:
    encoder = filled_encoder(112).train()
    encoder(torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(1))).square().sum().backward()
    still = [
        name for name, parameter in encoder.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert still == []


def test_tensors_are_those_of_the_official_file() -> None:
    state = TinyViT().state_dict()
    expected = {
        "patch_embed.seq.0.c.weight": (32, 3, 3, 3),
        "patch_embed.seq.2.bn.running_var": (64,),
        "layers.0.blocks.1.conv2.c.weight": (256, 1, 3, 3),
        "layers.0.downsample.conv3.bn.num_batches_tracked": (),
        "layers.1.blocks.0.attn.attention_biases": (4, 49),
        "layers.2.blocks.5.attn.attention_biases": (5, 196),
        "layers.2.downsample.conv2.c.weight": (320, 1, 3, 3),
        "layers.3.blocks.1.mlp.norm.weight": (320,),
        "layers.3.blocks.1.local_conv.c.weight": (320, 1, 3, 3),
        "neck.2.weight": (256, 256, 3, 3),
    }
    assert {key: tuple(state[key].shape) for key in expected} == expected
    assert len(state) == 298


def test_impossible_image_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="1000 is not a multiple of 16"):
        TinyViT(image_size=1000)
    with pytest.raises(ValueError, match="48 x 48 pixels, not for 64 x 48"):
        TinyViT(image_size=48)(torch.zeros(1, 3, 64, 48))
