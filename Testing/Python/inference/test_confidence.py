"""Confidence from the agreement of the stages and the margin of the probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from HSAMSegmentLib.inference.confidence import (
    ConfidenceCounts,
    combined_confidence,
    slice_evidence,
    winning_channel,
)


def logits_of(labels: torch.Tensor, channels: int, strength: float) -> torch.Tensor:
    one_hot = torch.nn.functional.one_hot(labels.long(), channels).movedim(-1, 1)
    return one_hot.float() * strength


def square(first: int, last: int) -> torch.Tensor:
    labels = torch.zeros(1, 40, 40)
    labels[:, first:last, first:last] = 1
    return labels


def counted(*stages: torch.Tensor) -> ConfidenceCounts:
    counts = ConfidenceCounts(slices=3, channels=stages[0].shape[1])
    counts.add(1, slice_evidence(list(stages)))
    return counts


def test_the_lowest_channel_wins_ties_and_the_rest_is_arg_max():
    logits = torch.randn(3, 7, 20, 20)
    np.testing.assert_array_equal(winning_channel(logits), logits.argmax(dim=1))
    assert winning_channel(torch.zeros(1, 5, 2, 2)).max() == 0


def test_stages_that_agree_have_agreement_one():
    logits = logits_of(square(10, 30), 3, 5.0)
    assert counted(logits, logits).agreement(1, 1) == pytest.approx(1.0)


def test_agreement_is_the_dice_of_both_stages():
    first, last = logits_of(square(10, 30), 3, 5.0), logits_of(square(15, 30), 3, 6.0)
    assert counted(first, last).agreement(1, 1) == pytest.approx(2 * 225 / (400 + 225))


def test_labels_of_the_last_stage_alone_still_say_whether_the_first_one_agrees():
    first, last = logits_of(square(10, 30), 3, 6.0), logits_of(square(15, 30), 3, 5.0)
    merged, alone = slice_evidence([first, last]), slice_evidence([first, last], last_only=True)
    np.testing.assert_array_equal(merged.channels[0], square(10, 30)[0])
    np.testing.assert_array_equal(alone.channels[0], square(15, 30)[0])
    np.testing.assert_array_equal(alone.margin, slice_evidence([last]).margin)
    for evidence in (merged, alone):
        np.testing.assert_array_equal(evidence.first[0], square(10, 30)[0])
        np.testing.assert_array_equal(evidence.last[0], square(15, 30)[0])


def test_a_channel_that_no_stage_has_agrees_with_nothing():
    logits = logits_of(square(10, 30), 3, 5.0)
    assert counted(logits, logits).agreement(2, 1) == 0.0


def test_agreement_of_large_slices_is_read_on_a_part_of_the_pixels():
    labels = torch.zeros(1, 256, 300)
    labels[:, 40:200, 50:200] = 1
    moved = torch.roll(labels, 20, dims=2)
    counts = counted(logits_of(labels, 2, 1.0), logits_of(moved, 2, 1.0))
    assert counts.agreement(1, 1) == pytest.approx(130 / 150, abs=0.01)


def test_one_stage_has_no_agreement_and_its_margin_is_the_confidence():
    counts = counted(logits_of(square(10, 30), 3, 2.0))
    assert counts.agreement(1, 1) is None
    assert combined_confidence(None, counts.margin(1, 1)) == counts.margin(1, 1)


def test_margin_is_the_lead_of_the_best_probability():
    strength = 2.0
    probability = np.exp(strength) / (np.exp(strength) + 2.0)
    expected = probability - (1.0 - probability) / 2.0
    counts = counted(logits_of(square(10, 30), 3, strength))
    assert counts.margin(1, 1) == pytest.approx(expected, abs=0.003)


def test_stronger_logits_mean_more_margin():
    margins = [counted(logits_of(square(10, 30), 3, strength)).margin(1, 1) for strength in (0.1, 1.0, 3.0, 30.0)]
    assert margins == sorted(margins)
    assert margins[0] < 0.1
    assert margins[-1] == pytest.approx(1.0)


def test_slices_without_a_label_have_no_margin():
    counts = counted(logits_of(square(10, 30), 3, 5.0))
    assert counts.margin(1, 0) == 0.0
    assert counts.margin(2, 1) == 0.0


def test_several_slices_are_weighted_by_area():
    counts = ConfidenceCounts(slices=2, channels=2)
    counts.add(0, slice_evidence([logits_of(square(0, 40), 2, 8.0)]))
    counts.add(1, slice_evidence([logits_of(square(0, 4), 2, 0.2)]))
    together = counts.margin(1, np.array([0, 1]))
    assert counts.margin(1, 1) < together < counts.margin(1, 0)
    assert together > 0.95


def test_confidence_is_low_when_either_observation_is_low():
    assert combined_confidence(1.0, 1.0) == 1.0
    assert combined_confidence(0.01, 1.0) == pytest.approx(0.1)
    assert combined_confidence(1.0, 0.0) == 0.0
