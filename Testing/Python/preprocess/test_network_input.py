"""Slices to network input and logits back to slices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from HSAMSegmentLib.preprocess.network_input import (
    NetworkInput,
    SliceFraming,
    SliceWindow,
    context_indices,
    context_step,
)
from HSAMSegmentLib.preprocess.rules import SliceRule

STRETCH = SliceRule()
ADJACENT = SliceRule(context="adjacent", context_mm=5.0)


def spacing_rule(pixel_mm: float) -> SliceRule:
    return SliceRule(framing="spacing", pixel_spacing_mm=pixel_mm)


def framing(rule: SliceRule, shape: tuple[int, int], size: int = 64, pixel_mm=(1.0, 1.0)) -> SliceFraming:
    return SliceFraming(rule, image_size=size, slice_shape=shape, pixel_spacing_mm=pixel_mm)


def smooth_slices(count: int, rows: int, columns: int) -> np.ndarray:
    noise = np.random.default_rng(7).random((count, rows, columns))
    return ndimage.gaussian_filter(noise, (0, 3, 3)).astype(np.float32) * 3.0


@pytest.mark.parametrize("shape", [(40, 50), (64, 64), (100, 90), (1, 7), (150, 64)])
def test_stretching_equals_the_spline_of_the_official_route(shape):
    slices = np.random.default_rng(1).random((2, *shape)).astype(np.float32)
    expected = [ndimage.zoom(image, (64 / shape[0], 64 / shape[1]), order=3) for image in slices]
    actual = framing(STRETCH, shape).images(torch.from_numpy(slices))
    assert actual.shape == (2, 1, 64, 64)
    np.testing.assert_allclose(actual[:, 0].numpy(), np.stack(expected), atol=3e-6)


def test_stretching_equals_the_golden_network_input(parity_folder):
    golden = np.load(parity_folder / "hsam_volume_pipeline_512.npz")
    volume = torch.from_numpy(golden["volume_u8"].astype(np.float32) / 255.0)
    images = framing(STRETCH, (300, 280), 512).images(volume)[:, 0]
    np.testing.assert_allclose(images[:, 1::9, 2::9].numpy(), golden["direct512_net_input"], atol=2e-6)


def test_stretched_labels_are_read_from_the_nearest_pixel_corner_to_corner(parity_folder):
    golden = np.load(parity_folder / "hsam_volume_pipeline_512.npz")
    labels = torch.arange(512, dtype=torch.int64)[None, :, None] * 1000 + torch.arange(512)[None, None, :]
    framed = framing(STRETCH, (512, 512), 304).labels(labels)[0, 0].numpy()
    expected = np.floor(np.arange(304) * 511 / 303 + 0.5).astype(int)
    np.testing.assert_array_equal(framed, expected[:, None] * 1000 + expected)
    rows = np.floor(np.arange(300) * 511 / 299 + 0.5).astype(int)
    np.testing.assert_array_equal(rows, golden["zoom_nearest_rows"])


def test_a_small_slice_is_centered_with_zeros_around_it_at_the_wanted_spacing():
    frame = framing(spacing_rule(2.0), (40, 60), pixel_mm=(1.0, 1.0))
    images = frame.images(torch.ones(1, 40, 60))[0, 0].numpy()
    assert frame.tile_count == 1
    expected = np.zeros((64, 64))
    expected[22:42, 17:47] = 1.0
    np.testing.assert_allclose(images, expected, atol=1e-6)


def test_anisotropic_pixels_become_square():
    frame = framing(spacing_rule(1.0), (20, 40), pixel_mm=(2.0, 1.0))
    images = frame.images(torch.ones(1, 20, 40))[0, 0]
    inside = images > 0.5
    assert inside.any(dim=1).sum() == 40
    assert inside.any(dim=0).sum() == 40


def test_a_larger_slice_is_covered_by_overlapping_tiles():
    frame = framing(spacing_rule(1.0), (100, 64))
    assert frame.tile_count == 2
    slices = torch.from_numpy(smooth_slices(1, 100, 64))
    tiles = frame.images(slices)[0]
    np.testing.assert_allclose(tiles[0], slices[0, :64], atol=1e-6)
    np.testing.assert_allclose(tiles[1], slices[0, 36:], atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "shape", "pixel_mm"),
    [
        (STRETCH, (50, 40), (1.0, 1.0)),
        (STRETCH, (64, 64), (1.0, 1.0)),
        (spacing_rule(1.0), (50, 40), (1.0, 1.0)),
        (spacing_rule(0.8), (50, 30), (1.0, 1.3)),
        (spacing_rule(1.0), (150, 100), (1.0, 1.0)),
        (spacing_rule(0.7), (90, 60), (0.9, 1.1)),
    ],
)
def test_what_was_framed_is_read_back_at_its_place(rule, shape, pixel_mm):
    slices = torch.from_numpy(smooth_slices(2, *shape))
    frame = framing(rule, shape, pixel_mm=pixel_mm)
    logits = frame.images(slices).flatten(0, 1)[:, None].repeat(1, 3, 1, 1)
    back = frame.logits(logits)
    assert back.shape == (2, 3, *shape)
    # The outermost pixels of a centered slice are read halfway to the zeros around it.
    np.testing.assert_allclose(back[:, 1, 1:-1, 1:-1], slices[:, 1:-1, 1:-1], atol=0.03)


@pytest.mark.parametrize("rule", [STRETCH, spacing_rule(1.0)])
def test_framed_labels_lie_where_the_framed_image_lies(rule):
    labels = torch.zeros(1, 90, 80, dtype=torch.uint8)
    labels[0, 30:60, 20:50] = 3
    frame = framing(rule, (90, 80))
    from_labels = frame.labels(labels)
    from_image = frame.images((labels == 3).float()) > 0.5
    assert from_labels.dtype == torch.uint8
    assert ((from_labels == 3) == from_image).float().mean() > 0.99


def test_coarse_logits_have_half_pixel_centers():
    coarse = torch.randn(1, 4, 16, 16)
    expected = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear", align_corners=False)
    actual = framing(STRETCH, (64, 64)).logits(coarse)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(50, 40), (64, 64), (150, 100)])
def test_a_window_of_the_logits_is_a_part_of_all_of_them(shape):
    frame = framing(spacing_rule(1.0), shape)
    logits = torch.randn(2 * frame.tile_count, 3, 32, 32)
    window = SliceWindow(5, 31, 12, 40)
    np.testing.assert_allclose(frame.logits(logits, window), frame.logits(logits)[..., 5:31, 12:40], atol=1e-5)


def test_the_shares_of_overlapping_tiles_sum_to_one():
    frame = framing(spacing_rule(1.0), (200, 170))
    ones = torch.ones(frame.tile_count, 1, 64, 64)
    np.testing.assert_allclose(frame.logits(ones), 1.0, atol=1e-5)


def test_adjacent_slices_are_context_millimeters_away_and_repeat_at_the_edges():
    assert context_step(ADJACENT, 2.5) == 2
    assert context_step(ADJACENT, 8.0) == 1
    assert context_step(STRETCH, 2.5) == 0
    np.testing.assert_array_equal(context_indices(np.arange(3), 3, 2), [[0, 0, 2], [0, 1, 2], [0, 2, 2]])


@pytest.mark.parametrize("rule", [STRETCH, ADJACENT])
def test_a_batch_holds_scaled_slices_with_their_context(rule):
    stack = np.arange(5, dtype=np.int16)[:, None, None] * np.ones((1, 64, 64), np.int16)
    source = NetworkInput(
        stack, rule=rule, framing=framing(rule, (64, 64)), slice_spacing_mm=5.0, scale=lambda gray: gray / 4.0
    )
    batch = source.batch(3, 5, "cpu")
    assert batch.shape == (2, 3, 64, 64)
    assert batch.dtype == torch.float32
    expected = [[0.5, 0.75, 1.0], [0.75, 1.0, 1.0]] if rule is ADJACENT else [[0.75] * 3, [1.0] * 3]
    np.testing.assert_allclose(batch[:, :, 10, 10], expected, atol=1e-6)


def test_tiles_of_one_slice_follow_each_other_in_a_batch():
    rule = SliceRule(framing="spacing", context="adjacent", context_mm=1.0)
    stack = smooth_slices(4, 100, 64)
    frame = framing(rule, (100, 64))
    source = NetworkInput(stack, rule=rule, framing=frame, slice_spacing_mm=1.0, scale=np.asarray)
    batch = source.batch(1, 3, "cpu")
    tiles = frame.images(torch.from_numpy(stack))
    assert batch.shape == (4, 3, 64, 64)
    np.testing.assert_allclose(batch[1, 0], tiles[0, 1], atol=1e-6)
    np.testing.assert_allclose(batch[2, 1], tiles[2, 0], atol=1e-6)
    np.testing.assert_allclose(batch[3, 2], tiles[3, 1], atol=1e-6)
