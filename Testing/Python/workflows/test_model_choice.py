"""Which model is taken when nobody names one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_models import manifest
from small_scans import bright_boxes

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.workflows.segment.model_choice import choose_model

CT = manifest(id="abdomen-ct", title="Abdomen CT", modality="CT")
MR = manifest(id="abdomen-mr", title="Abdomen MR", modality="MR")
HEART = manifest(id="heart", title="Heart MR", modality="MR", field_of_view_mm=(250.0, 400.0))


def scan(modality: str) -> Volume:
    return replace(bright_boxes(), modality=modality)


def test_the_only_plausible_model_is_used_and_said():
    choice = choose_model(scan("MR"), [CT, MR])
    assert choice.model_id == "abdomen-mr"
    assert "abdomen-mr" in choice.sentence
    assert "of the 2 installed models" in choice.sentence


def test_a_single_installed_model_is_used_if_it_fits():
    assert "only one installed" in choose_model(scan("CT"), [CT]).sentence


def test_a_scan_that_does_not_say_what_it_is_may_be_mr_but_is_no_ct():
    assert choose_model(scan(""), [CT, MR]).model_id == "abdomen-mr"


def test_the_size_of_the_slices_rules_models_out():
    assert choose_model(scan("MR"), [MR, HEART]).model_id == "abdomen-mr"


def test_the_organs_asked_for_rule_models_out():
    assert choose_model(scan("MR"), [MR, replace(MR, id="other")][:1], ["gray"]).model_id == "abdomen-mr"
    with pytest.raises(RequestError, match="does not know all of the organs"):
        choose_model(scan("MR"), [MR], ["pancreas"])


def test_several_plausible_models_are_a_question_with_their_names():
    with pytest.raises(RequestError, match=r"Several models.*abdomen-mr \(Abdomen MR\); second.*--model"):
        choose_model(scan("MR"), [CT, MR, replace(MR, id="second")])


def test_no_plausible_model_is_an_error_with_the_reasons():
    with pytest.raises(
        RequestError, match=r"abdomen-ct: made for CT, .* but MR; heart: made for slices of 250 to 400 mm"
    ):
        choose_model(scan("MR"), [CT, HEART])


def test_without_any_model_the_user_learns_how_to_get_one():
    with pytest.raises(RequestError, match=r"No model is installed.*import.*fine-tune"):
        choose_model(scan("CT"), [])
