"""Augmented views: labels are looked up and never invented, and the picture moves with them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from HSAMSegmentLib.training.data.augment import AugmentRule, augment, between
from HSAMSegmentLib.training.data.cases import UNLABELED

STILL = AugmentRule(
    rotation_degrees=0,
    scale=(1, 1),
    shift_px=0,
    elastic_px=0,
    gamma=(1, 1),
    contrast=(1, 1),
    brightness=0,
    bias_field=0,
    noise=0,
    blur_probability=0,
    lone_slice_probability=0,
)
STRONG = AugmentRule(
    rotation_degrees=40, any_turn_probability=0.5, scale=(0.5, 2.0), elastic_px=8, mirror_probability=0.5
)


def batch(seed: int = 0, side: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(3, 3, side, side, generator=generator)
    labels = torch.randint(0, 4, (3, side, side), generator=generator).to(torch.uint8)
    return images, labels


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_rule_without_any_change_returns_the_slices_themselves():
    images, labels = batch()
    views, looked_up = augment(images, labels, STILL, size=(48, 48), generator=seeded())
    torch.testing.assert_close(views, images, atol=1e-5, rtol=0)
    assert torch.equal(looked_up, labels.long())


def test_labels_keep_their_values_under_the_strongest_deformation():
    images, _ = batch()
    labels = torch.tensor([0, 7, UNLABELED], dtype=torch.uint8)[torch.randint(0, 3, (3, 48, 48), generator=seeded())]
    _, looked_up = augment(images, labels, STRONG, size=(64, 64), generator=seeded())
    assert set(looked_up.unique().tolist()) == {0, 7, UNLABELED}


def test_the_same_seed_gives_the_same_views_and_another_seed_others():
    images, labels = batch()
    first = augment(images, labels, STRONG, size=(48, 48), generator=seeded(1))
    again = augment(images, labels, STRONG, size=(48, 48), generator=seeded(1))
    other = augment(images, labels, STRONG, size=(48, 48), generator=seeded(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_the_picture_moves_with_its_labels():
    labels = torch.zeros(1, 64, 64, dtype=torch.uint8)
    labels[:, 20:44, 12:30] = 1
    images = labels[:, None].float().expand(-1, 3, -1, -1)
    rule = AugmentRule(
        **{**STILL.to_json(), "rotation_degrees": 40, "scale": (0.7, 1.4), "shift_px": 5.0, "elastic_px": 4.0}
    )
    views, looked_up = augment(images, labels, rule, size=(64, 64), generator=seeded())
    agreement = ((views[:, 1] > 0.5) == (looked_up == 1)).float().mean()
    assert looked_up.any()
    assert agreement > 0.995


def test_without_mirroring_left_stays_left():
    images = torch.zeros(40, 3, 32, 32)
    images[:, :, :, :12] = 1.0
    labels = torch.zeros(40, 32, 32, dtype=torch.uint8)
    views, _ = augment(images, labels, AugmentRule(shift_px=2.0), size=(32, 32), generator=seeded())
    left, right = views[..., :16].mean(dim=(1, 2, 3)), views[..., 16:].mean(dim=(1, 2, 3))
    assert bool((left > right).all())


def test_what_lies_outside_of_the_slice_is_empty_background():
    images, labels = torch.ones(2, 3, 32, 32), torch.full((2, 32, 32), 3, dtype=torch.uint8)
    views, looked_up = augment(images, labels, STILL, size=(64, 64), generator=seeded())
    assert float(views[..., :15, :].max()) == 0.0
    assert int(looked_up[..., :15, :].max()) == 0
    assert int(looked_up[..., 16:48, 16:48].min()) == 3


@pytest.mark.parametrize("size", [(32, 80), (80, 32)])
def test_views_may_have_another_size_and_shape_than_slices(size):
    images, labels = batch()
    views, looked_up = augment(images, labels, STRONG, size=size, generator=seeded())
    assert views.shape == (3, 3, *size)
    assert looked_up.shape == (3, *size)


def test_intensities_stay_between_zero_and_one():
    images, labels = batch()
    rule = AugmentRule(noise=1.0, brightness=0.9, contrast=(0.2, 5.0), bias_field=1.0)
    views, _ = augment(images, labels, rule, size=(48, 48), generator=seeded())
    assert float(views.min()) >= 0.0
    assert float(views.max()) <= 1.0
    assert bool(torch.isfinite(views).all())


def test_neighbors_are_replaced_by_the_slice_itself_when_asked_always():
    images, labels = batch()
    rule = AugmentRule(**{**STILL.to_json(), "lone_slice_probability": 1.0})
    views, _ = augment(images, labels, rule, size=(48, 48), generator=seeded())
    assert torch.equal(views[:, 0], views[:, 1])
    assert torch.equal(views[:, 2], views[:, 1])


def test_a_rule_on_the_way_to_another_begins_and_ends_with_these_and_has_every_range_in_between():
    first = AugmentRule(rotation_degrees=20, scale=(0.8, 1.2), noise=0.0, elastic_cell_px=32)
    last = AugmentRule(rotation_degrees=60, scale=(0.6, 1.6), noise=0.1, elastic_cell_px=32, swap_neighbors=True)
    assert between(first, last, 1.0) == last
    assert between(first, last, 0.0) == AugmentRule(**{**first.to_json(), "swap_neighbors": True})
    middle = between(first, last, 0.5)
    assert (middle.rotation_degrees, middle.noise, middle.elastic_cell_px) == (40, 0.05, 32)
    assert middle.scale == pytest.approx((0.7, 1.4))


def test_only_structures_change_with_their_contrast_and_enhancing_ones_can_get_darker():
    images, labels = torch.full((64, 3, 48, 48), 0.5), torch.zeros(64, 48, 48, dtype=torch.uint8)
    labels[:, 8:20, 8:20], labels[:, 28:40, 8:20], labels[:, 8:20, 28:40] = 1, 2, UNLABELED
    rule = replace(
        STILL, shift_px=0, elastic_px=0, structure_contrast=1e-6, enhancing_labels=(2,), unenhanced_probability=0.5
    )
    views, found = augment(images, labels, rule, size=(48, 48), generator=torch.Generator().manual_seed(0))
    inside = views[:, :, 9:19, 9:19], views[:, :, 29:39, 9:19], views[:, :, 9:19, 29:39]
    first, second, unlabeled = (part.flatten(1).mean(dim=1) for part in inside)
    torch.testing.assert_close(first, torch.full((64,), 0.5), atol=1e-4, rtol=0)
    torch.testing.assert_close(unlabeled, torch.full((64,), 0.5), atol=1e-4, rtol=0)
    is_darker = second < 0.499
    assert 16 < int(is_darker.sum()) < 48
    assert float(second.min()) >= 0.5 - 0.25 - 1e-4
    assert torch.equal(found.to(torch.uint8), labels)
    strong = replace(rule, structure_contrast=0.1, structure_contrast_probability=1.0, enhancing_labels=())
    views, _ = augment(images, labels, strong, size=(48, 48), generator=torch.Generator().manual_seed(0))
    assert 0.03 < float(views[:, 1, 14, 14].std()) < 0.12
    assert float((views[:, 1, 24, 24] - 0.5).abs().max()) < 1e-4
