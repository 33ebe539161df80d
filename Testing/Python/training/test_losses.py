"""Losses of H-SAM and AutoSAM: the official values, and what happens to pixels without a label."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from parity_weights import GoldenFile
from scipy.ndimage import zoom

from HSAMSegmentLib.training.data.cases import UNLABELED
from HSAMSegmentLib.training.loop.losses import autosam_loss, hsam_loss, reduced_labels, stage_loss
from HSAMSegmentLib.training.loop.optimizer import hsam_last_stage_weight

AUTOSAM_CASES = ("random", "one_class_absent", "good_prediction")


@pytest.fixture(scope="module")
def hsam_values(parity_folder):
    return GoldenFile(parity_folder / "hsam_losses_schedule.npz")


@pytest.fixture(scope="module")
def autosam_values(parity_folder):
    return GoldenFile(parity_folder / "autosam_losses.npz")


def _problem(golden, case):
    logits = torch.from_numpy(golden[f"{case}_logits"]).requires_grad_()
    return logits, torch.from_numpy(golden[f"{case}_labels"])


def _random_problem(seed=0, classes=3, size=12):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, size, size, generator=generator)
    return logits, torch.randint(0, classes, (2, size, size), generator=generator)


@pytest.mark.parametrize("dice_weight", [0.8, 0.9])
@pytest.mark.parametrize("case", ["nine_class", "two_class", "missing_class"])
def test_a_stage_of_hsam_has_the_official_loss(hsam_values, case, dice_weight):
    logits, labels = _problem(hsam_values, case)
    expected = hsam_values.meta["values"][f"{case}_w{dice_weight}"]

    loss = stage_loss(logits, labels, dice_weight=dice_weight)
    loss.backward()

    assert loss.item() == pytest.approx(expected["loss"], rel=1e-5)
    assert logits.grad.double().abs().sum().item() == pytest.approx(expected["grad_abs_sum"], rel=1e-5)


@pytest.mark.parametrize("case", ["nine_class", "two_class", "missing_class"])
def test_a_stage_of_hsam_has_the_official_gradient(hsam_values, case):
    logits, labels = _problem(hsam_values, case)
    stage_loss(logits, labels, dice_weight=0.9).backward()
    np.testing.assert_allclose(logits.grad, hsam_values[f"{case}_grad_w0.9"], rtol=1e-4, atol=1e-8)


def test_both_stages_are_weighted_as_in_the_official_training(hsam_values):
    expected = hsam_values.meta["values"]["two_stage"]
    for epoch, total in expected["total_by_epoch"].items():
        weight = hsam_last_stage_weight(int(epoch))
        ours = (1 - weight) * expected["loss1"] + weight * expected["loss2"]
        assert ours == pytest.approx(total, rel=1e-6)


def test_the_loss_of_two_stages_is_the_weighted_sum_of_the_losses_of_each():
    fine, labels = _random_problem(size=48)
    coarse, _ = _random_problem(seed=1, size=12)

    total = hsam_loss((coarse, fine), labels, last_weight=0.7)

    low = stage_loss(coarse, reduced_labels(labels, (12, 12)))
    assert total.item() == pytest.approx((0.3 * low + 0.7 * stage_loss(fine, labels)).item(), rel=1e-6)


def test_a_head_with_one_stage_is_not_weighted_down():
    logits, labels = _random_problem()
    assert hsam_loss((logits,), labels, last_weight=0.6) == stage_loss(logits, labels)


@pytest.mark.parametrize(("full", "low"), [(224, 56), (512, 128), (100, 28)])
def test_labels_are_reduced_as_scipy_does_for_the_official_training(full, low):
    labels = torch.randint(0, 9, (2, full, full), generator=torch.Generator().manual_seed(full))
    expected = [zoom(image.numpy(), low / full, order=0) for image in labels]
    np.testing.assert_array_equal(reduced_labels(labels, (low, low)), expected)


def test_labels_are_reduced_with_aligned_corners(parity_folder):
    golden = GoldenFile(parity_folder / "hsam_volume_pipeline_512.npz")
    rows, columns = golden["zoom_nearest_rows"], golden["zoom_nearest_cols"]
    numbered = torch.arange(512 * 512).view(1, 512, 512)
    reduced = reduced_labels(numbered, (len(rows), len(columns)))[0]
    np.testing.assert_array_equal(reduced, rows[:, None] * 512 + columns[None])


@pytest.mark.parametrize("case", AUTOSAM_CASES)
def test_autosam_has_the_official_loss_and_gradient(autosam_values, case):
    logits, labels = _problem(autosam_values, case)
    loss = autosam_loss(logits, labels)
    loss.backward()
    assert loss.item() == pytest.approx(autosam_values.meta["values"][case]["total"], rel=1e-5)
    np.testing.assert_allclose(logits.grad, autosam_values[f"{case}_grad"], rtol=1e-4, atol=1e-8)


def test_a_perfectly_predicted_background_is_zero_and_not_a_number_only_on_request(autosam_values):
    logits, labels = _problem(autosam_values, "only_background_and_prediction_background")
    loss = autosam_loss(logits, labels)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits.grad).all()
    assert math.isnan(autosam_loss(logits, labels, undefined_is_nan=True).item())


@pytest.mark.parametrize("loss", [stage_loss, autosam_loss])
def test_unlabeled_pixels_count_nowhere(loss):
    logits, labels = _random_problem()
    sparse = labels.clone()
    sparse[1] = UNLABELED
    assert loss(logits, sparse).item() == pytest.approx(loss(logits[:1], labels[:1]).item(), rel=1e-6)


@pytest.mark.parametrize("loss", [stage_loss, autosam_loss])
def test_unlabeled_pixels_get_no_gradient(loss):
    logits, labels = _random_problem()
    logits.requires_grad_()
    labels[:, :4] = UNLABELED
    loss(logits, labels).backward()
    assert logits.grad[:, :, :4].abs().max() == 0
    assert logits.grad[:, :, 4:].abs().min() > 0


@pytest.mark.parametrize("loss", [stage_loss, autosam_loss])
def test_a_batch_without_any_label_has_no_loss(loss):
    logits, labels = _random_problem()
    assert loss(logits, torch.full_like(labels, UNLABELED)).item() == 0


def test_byte_labels_are_as_good_as_long_ones():
    logits, labels = _random_problem()
    assert stage_loss(logits, labels.to(torch.uint8)) == stage_loss(logits, labels)


def test_half_precision_logits_are_summed_in_single_precision():
    logits, labels = _random_problem(size=200)
    half = logits.to(torch.bfloat16)
    assert stage_loss(half, labels) == stage_loss(half.float(), labels)


def test_finer_labels_count_by_the_share_of_each_class_in_a_pixel():
    logits, labels = _random_problem()
    finer = labels.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    assert autosam_loss(logits, finer) == pytest.approx(autosam_loss(logits, labels).item(), rel=1e-6)
    half = finer.clone()
    half[:, ::2] = 0
    certain = 9.0 * torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    undecided = certain.clone()
    undecided[:, 0] = 9.0
    assert autosam_loss(undecided, half) < autosam_loss(certain, half)


def test_finer_pixels_without_a_label_count_nowhere():
    logits, labels = _random_problem()
    finer = labels.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    finer[:, :12, :] = UNLABELED
    lower = autosam_loss(logits[:, :, 6:], labels[:, 6:])
    assert autosam_loss(logits, finer) == pytest.approx(lower.item(), rel=1e-6)
