"""What is different after few scans: how they are learned, and an offset chosen on slices that were held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_cases import small_case
from torch import Tensor, nn

from HSAMSegmentLib.checkpoints.loading import load_model
from HSAMSegmentLib.inference.options import PostprocessOptions, SegmentOptions
from HSAMSegmentLib.inference.segmenter import Segmenter
from HSAMSegmentLib.models.interface import StageLogits
from HSAMSegmentLib.training.augment import AugmentRule
from HSAMSegmentLib.training.calibration import CANDIDATES, calibrated_background
from HSAMSegmentLib.training.plan import make_plan
from HSAMSegmentLib.training.request import TeachRequest
from HSAMSegmentLib.training.slice_bank import build_slice_bank
from HSAMSegmentLib.training.teach import teach
from HSAMSegmentLib.training.validation import predict_slices, whole_case
from HSAMSegmentLib.volumes.rules import IntensityRule, PredictionRule, SliceRule

STILL = AugmentRule(0.0, 0.0, (1.0, 1.0), 0.0, 0.0, 32, 0.0, (1.0, 1.0), (1.0, 1.0), 0.0, 0.0, 0.0, 0.0, 0.0)
PLAIN = AugmentRule(rotation_degrees=5.0, noise=0.0, gamma=(1.0, 1.0), bias_field=0.0)


class ByBrightness(nn.Module):
    """Says label 1 where the slice is brighter than a level; near it, it is unsure."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, images: Tensor) -> StageLogits:
        logit = 10.0 * (images[:, 1] - self.level)
        return StageLogits((torch.stack([torch.zeros_like(logit), logit], dim=1),))


@pytest.fixture(scope="module")
def drawn_by_brightness(data_folder):
    """A real scan whose only label is what is brighter than 0.3."""
    case = small_case(data_folder)
    slices = SliceRule(framing="spacing", pixel_spacing_mm=2.5)
    bank = build_slice_bank(case, slices=slices, intensity=IntensityRule(), image_size=128)
    labels = (bank.images.float() > 0.3).to(torch.uint8)
    reference = (bank.framing.logits(bank.all_tiles(range(len(bank)))[:, 1:2])[:, 0] > 0.3).to(torch.uint8)
    return replace(bank, labels=labels, reference=reference)


def offset_for(level: float, bank) -> float:
    return calibrated_background(
        ByBrightness(level),
        (whole_case(bank),),
        num_classes=1,
        views=STILL,
        rule=PredictionRule(),
        device=torch.device("cpu"),
        seconds=None,
    )


@pytest.mark.parametrize(("level", "offset"), [(0.3, 0.0), (0.25, 0.5), (0.2, 1.0), (0.0, 1.0), (0.4, 0.0)], ids=str)
def test_a_network_that_draws_too_much_gets_the_offset_that_undoes_it_and_no_other_gets_one(
    drawn_by_brightness, level, offset
):
    assert offset_for(level, drawn_by_brightness) == offset


def test_without_slices_or_structures_in_them_nothing_is_offset(drawn_by_brightness):
    empty = replace(drawn_by_brightness, labels=torch.zeros_like(drawn_by_brightness.labels))
    assert offset_for(0.2, empty) == 0.0
    nothing = calibrated_background(
        ByBrightness(0.2),
        (),
        num_classes=1,
        views=PLAIN,
        rule=PredictionRule(),
        device=torch.device("cpu"),
        seconds=None,
    )
    assert nothing == 0.0


def test_the_offset_moves_the_border_in_validating(drawn_by_brightness):
    network, every = ByBrightness(0.25), range(len(drawn_by_brightness))
    plain = predict_slices(network, drawn_by_brightness, every, rule=PredictionRule())
    smaller = predict_slices(network, drawn_by_brightness, every, rule=PredictionRule(background=0.5))
    assert np.count_nonzero(smaller) < np.count_nonzero(plain)
    np.testing.assert_array_equal(smaller, drawn_by_brightness.reference.numpy())


def test_a_rule_keeps_its_offset_in_a_file_and_refuses_one_beyond_reason():
    rule = PredictionRule("last", ((0.0, 1.0), (15.0, 1.0)), 0.5)
    assert PredictionRule.from_json(rule.to_json()) == rule
    assert PredictionRule.from_json({"stages": "last"}).background == 0.0
    for wrong in (6.0, float("nan")):
        with pytest.raises(ValueError, match="shifted by -5 to 5"):
            PredictionRule(background=wrong)


def test_only_few_scans_are_taught_at_a_constant_rate_with_views_that_widen(data_folder, tmp_path: Path):
    case, request = small_case(data_folder), TeachRequest(output=tmp_path / "taught.safetensors")
    few, many = (make_plan(request, [case] * count, None, 2) for count in (5, 6))
    assert (few.schedule, many.schedule) == ("constant", "cosine")
    assert few.augment_at(0) == many.augment == many.augment_at(1000)
    assert few.augment_at(1000) == few.augment
    turns = [few.augment_at(step).rotation_degrees for step in (0, 100, 300, 500, 900)]
    assert turns == sorted(turns)
    assert turns[0] < turns[2] < turns[3] == turns[4] == few.augment.rotation_degrees
    asked = make_plan(replace(request, schedule="cosine", rate=1e-4), [case], None, 2)
    assert (asked.schedule, asked.rate) == ("cosine", 1e-4)
    frozen = make_plan(replace(request, adaptation="frozen"), [case], None, 2)
    assert (frozen.schedule, frozen.augment_first) == ("cosine", None)


def test_segmenting_applies_the_offset_of_the_model(data_folder, tmp_path: Path):
    case = small_case(data_folder)
    request = TeachRequest(output=tmp_path / "taught.safetensors", epochs=3, device="cpu", image_size=64)
    model = load_model(teach(request, cases=[case]).path)
    assert model.manifest.prediction.background in CANDIDATES
    counts = []
    for offset in (-1.0, 0.0, 1.0):
        manifest = replace(model.manifest, prediction=replace(model.manifest.prediction, background=offset))
        options = SegmentOptions(postprocess=PostprocessOptions(False, False, 0.0))
        segmenter = Segmenter(replace(model, manifest=manifest), device="cpu", options=options)
        counts.append(np.count_nonzero(segmenter.segment(case.volume).segmentation.array))
    assert counts[0] > counts[1] > counts[2]
