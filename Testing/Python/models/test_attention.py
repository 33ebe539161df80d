"""The grid attention against a plain one that pads windows with zeros and builds the bias between all tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from HSAMSegmentLib.models.encoders import attention
from HSAMSegmentLib.models.encoders.attention import GridAttention
from HSAMSegmentLib.models.encoders.sam_layers import cut, put, tiles

WINDOW = 14


def plain_attention(module: GridAttention, x: Tensor) -> Tensor:
    """The definition, window by window: tokens [B, rows, columns, dim], every padded token computed and dropped."""
    batch, rows, columns, dim = x.shape
    side = module.grid_side
    padded = nn.functional.pad(x, (0, 0, 0, -columns % side, 0, -rows % side))
    result = torch.zeros_like(padded)
    for image in range(batch):
        for row in range(0, padded.shape[1], side):
            for column in range(0, padded.shape[2], side):
                place = (image, slice(row, row + side), slice(column, column + side))
                result[place] = plain_window(module, padded[place].reshape(side * side, dim)).view(side, side, dim)
    return result[:, :rows, :columns]


def plain_window(module: GridAttention, tokens: Tensor) -> Tensor:
    """All tokens of one square attend to all of them: [n * n, dim]."""
    side, heads = module.grid_side, module.num_heads
    q, k, v = module.qkv(tokens).view(side * side, 3, heads, -1).permute(1, 2, 0, 3)
    row = torch.arange(side).repeat_interleave(side)
    column = torch.arange(side).repeat(side)
    table_h = module.rel_pos_h[row[:, None] - row[None, :] + side - 1]
    table_w = module.rel_pos_w[column[:, None] - column[None, :] + side - 1]
    logits = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    logits = logits + torch.einsum("hqd,qkd->hqk", q, table_h) + torch.einsum("hqd,qkd->hqk", q, table_w)
    return module.proj((logits.softmax(dim=-1) @ v).permute(1, 0, 2).flatten(1))


def filled(side: int, *, windowed: bool, dim: int = 24, heads: int = 3) -> GridAttention:
    module = GridAttention(dim=dim, num_heads=heads, grid_side=side, windowed=windowed)
    generator = torch.Generator().manual_seed(side)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5 if parameter.ndim == 1 else 0.3, generator=generator)
    return module


def random_tokens(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (14, 14), (15, 15), (28, 28), (32, 32), (5, 31), (27, 14)])
def test_windows_of_every_filling_give_the_numbers_of_the_definition(rows: int, columns: int) -> None:
    module = filled(WINDOW, windowed=True)
    x = random_tokens(2, rows, columns, 24)
    with torch.inference_mode():
        torch.testing.assert_close(module(x), plain_attention(module, x), atol=2e-5, rtol=0)


@pytest.mark.parametrize("side", [3, 14, 15, 36])
def test_global_attention_gives_the_numbers_of_the_definition(side: int) -> None:
    module = filled(side, windowed=False, dim=16, heads=2)
    x = random_tokens(1, side, side, 16)
    with torch.inference_mode():
        torch.testing.assert_close(module(x), plain_attention(module, x), atol=2e-5, rtol=0)


def test_the_widened_form_for_cuda_gives_the_numbers_of_the_summed_one() -> None:
    module = filled(WINDOW, windowed=True)
    q, k, v = (random_tokens(2, 3, 6 * 9, 8), random_tokens(2, 3, 7 * 10, 8), -random_tokens(2, 3, 7 * 10, 8))
    terms = (random_tokens(2, 3, 6 * 9, 7), random_tokens(2, 3, 6 * 9, 10))
    assert not module.qkv.weight.is_cuda
    torch.testing.assert_close(
        attention._widened_attention(q, k, v, *terms), attention.biased_attention(q, k, v, *terms), atol=5e-6, rtol=0
    )


@pytest.mark.parametrize(("side", "grid", "windowed"), [(WINDOW, 18, True), (9, 9, False)])
def test_gradients_are_those_of_the_definition(side: int, grid: int, windowed: bool) -> None:
    module = filled(side, windowed=windowed).double()
    weights = random_tokens(2, grid, grid, 24).double()
    gradients = []
    for compute in (module, lambda x: plain_attention(module, x)):
        x = random_tokens(2, grid, grid, 24).double().requires_grad_()
        module.zero_grad()
        (compute(x) * weights).sum().backward()
        gradients.append([x.grad, *(parameter.grad.clone() for parameter in module.parameters())])
    for ours, plain in zip(*gradients):
        torch.testing.assert_close(ours, plain, atol=1e-9, rtol=1e-9)


def test_results_and_gradients_do_not_depend_on_how_much_is_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module = filled(20, windowed=False)
    results = []
    for at_once, kept in ((2**30, 2**30), (2**16, 2**30), (2**16, 2**16)):
        monkeypatch.setattr(attention, "_CACHED_LOGITS", at_once)
        monkeypatch.setattr(attention, "_KEPT_LOGITS", kept)
        x = random_tokens(2, 20, 20, 24).requires_grad_()
        y = module(x)
        y.square().sum().backward()
        results.append((y.detach(), x.grad))
    for y, gradient in results[1:]:
        torch.testing.assert_close(y, results[0][0], atol=1e-5, rtol=0)
        torch.testing.assert_close(gradient, results[0][1], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("side", "grid", "windowed"), [(WINDOW, 18, True), (32, 32, False)])
def test_autocast_to_bfloat16_stays_close(side: int, grid: int, windowed: bool) -> None:
    module = filled(side, windowed=windowed)
    x = random_tokens(1, grid, grid, 24) / 4
    with torch.inference_mode():
        exact = module(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = module(x)
    assert rounded.dtype == torch.bfloat16
    assert nn.functional.cosine_similarity(exact.flatten(), rounded.float().flatten(), dim=0) > 0.999


def test_a_batch_gives_each_image_what_it_gets_alone() -> None:
    module = filled(WINDOW, windowed=True)
    x = random_tokens(5, 17, 17, 24)
    with torch.inference_mode():
        alone = torch.cat([module(image[None]) for image in x])
        torch.testing.assert_close(module(x), alone, atol=5e-6, rtol=0)


def test_global_attention_refuses_a_grid_of_another_size() -> None:
    with pytest.raises(ValueError, match="spans 8 x 8 tokens, not 8 x 9"):
        filled(8, windowed=False)(random_tokens(1, 8, 9, 24))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="5 heads do not divide the width 24"):
        filled(8, windowed=False, heads=5)


@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (14, 3), (32, 15), (64, 64)])
def test_windows_cover_every_token_once(rows: int, columns: int) -> None:
    tokens = torch.arange(2.0 * rows * columns).view(2, rows, columns, 1, 1)
    rebuilt = torch.full_like(tokens, -1)
    for tile in tiles(rows, columns, WINDOW):
        windows = cut(tokens, tile)
        assert windows.shape[-3:-1] == (tile.rows.size, tile.columns.size)
        assert (rebuilt[:, tile.rows.span, tile.columns.span] == -1).all()
        put(rebuilt, tile, windows.flatten(0, 2))
    assert torch.equal(rebuilt, tokens)
