"""Learning rates and stage weights against what the official training loop was seen to use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from parity_weights import GoldenFile

from HSAMSegmentLib.training.loop.optimizer import (
    PLATEAU_FIRST_EPOCH,
    hsam_last_stage_weight,
    hsam_rate,
    hsam_rate_share,
    plateau_share,
)


@pytest.fixture(scope="module")
def golden(parity_folder):
    return GoldenFile(parity_folder / "hsam_losses_schedule.npz")


def test_every_rate_of_a_training_with_warm_up_is_the_official_one(golden):
    expected = golden["trainer_lr_used_at_step"]
    ours = [hsam_rate(step, base_rate=0.0026, total_steps=600) for step in range(600)]
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_the_rate_after_a_step_is_the_one_used_at_the_next(golden):
    expected = golden["trainer_lr_logged_after_step"]
    ours = [hsam_rate(step + 1, base_rate=0.0026, total_steps=600) for step in range(600)]
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_every_rate_of_a_training_without_warm_up_is_the_official_one(golden):
    expected = golden["trainer_nowarmup_lr_used_at_step"]
    ours = [hsam_rate(step, base_rate=0.005, total_steps=40, warmup_steps=0) for step in range(40)]
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_a_training_of_the_published_length_has_the_official_rates(golden):
    case = golden.meta["values"]["lr_formula_realistic"]
    for step, expected in case["logged_after_step"].items():
        ours = hsam_rate(
            int(step) + 1,
            base_rate=case["base_lr"],
            total_steps=case["max_iterations"],
            warmup_steps=case["warmup"],
        )
        assert ours == pytest.approx(expected, rel=1e-12)


def test_the_second_stage_gains_weight_as_in_the_official_training(golden):
    values = golden.meta["values"]
    for epoch, expected in values["stage2_weight_formula"].items():
        assert hsam_last_stage_weight(int(epoch)) == pytest.approx(expected, rel=1e-12)
    for epoch, observed in values["stage2_weight_derived_from_trainer"]:
        assert hsam_last_stage_weight(epoch) == pytest.approx(observed, rel=1e-4)


def test_a_training_that_knows_its_progress_only_follows_the_same_schedule():
    shares = [hsam_rate_share(step, step / 2000) for step in range(2000)]
    expected = [hsam_rate(step, base_rate=1.0, total_steps=2000) for step in range(2000)]
    assert shares == pytest.approx(expected, rel=1e-9)


def test_a_short_training_warms_up_for_a_quarter_of_its_steps():
    shares = [hsam_rate_share(step, step / 40) for step in range(40)]
    assert max(shares) == shares[11] == 1.0
    assert 0.0 < shares[1] < shares[5] < 1.0
    assert 0.0 < shares[-1] < shares[20] < 1.0


def torch_shares(losses: list[float]) -> list[float]:
    """Rates of torch's own scheduler after each epoch, fed as AutoSAM's training feeds it."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "min", factor=0.1, patience=10, eps=0.0)
    shares = []
    for epoch, loss in enumerate(losses):
        if epoch >= 10:
            scheduler.step(loss)
        shares.append(optimizer.param_groups[0]["lr"])
    return shares


@pytest.mark.parametrize("seed", range(4))
def test_the_rate_falls_on_plateaus_as_with_torchs_own_scheduler(seed):
    draw = np.random.default_rng(seed)
    losses = list(2.0 ** -np.minimum(np.arange(120) / 15, 2) + 0.2 * draw.random(120))
    ours = [plateau_share(losses[: epoch + 1]) for epoch in range(120)]
    assert ours == pytest.approx(torch_shares(losses), rel=1e-12)
    assert min(ours) < 0.5


@pytest.mark.parametrize("change", [0.0, -0.9e-4, -1.1e-4])
def test_a_loss_must_fall_by_a_ten_thousandth_to_count_as_lower(change):
    losses = [(1.0 + change) ** epoch for epoch in range(40)]
    ours = [plateau_share(losses[: epoch + 1]) for epoch in range(40)]
    assert ours == pytest.approx(torch_shares(losses), rel=1e-12)


def test_the_first_epochs_do_not_count_and_the_full_rate_lasts_through_the_first_plateau():
    assert plateau_share([]) == 1.0
    flat = [1.0] * (PLATEAU_FIRST_EPOCH + 1 + 10)
    assert plateau_share(flat) == 1.0
    assert plateau_share([*flat, 1.0]) == 0.1


def test_a_loss_that_is_no_number_is_not_lower():
    assert plateau_share([1.0] * 11 + [float("nan")] * 11) == 0.1
