"""Which model is preselected for a scan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.workflows.segment.model_choice import body_parts, doubt_about, model_parts, suggest_model


@pytest.fixture(scope="module")
def built_in():
    """The models of the repository."""
    found = [entry.manifest for entry in Store().models() if entry.is_present and entry.manifest is not None]
    wanted = ("abdomen-ct", "abdomen-mr", "cardiac-mr-bssfp", "left-atrium-lge")
    return [manifest for manifest in found if manifest.id in wanted]


def scan(modality, millimeters, name="Scan"):
    side = 256
    geometry = Geometry(
        (side, side, 40), (millimeters / side, millimeters / side, 5.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel())
    )
    return Volume(np.zeros((40, 4, 4), np.int16), geometry, name, modality)


@pytest.mark.parametrize(
    ("modality", "millimeters", "texts", "expected"),
    [
        ("CT", 360.0, ("ABDOMEN",), "abdomen-ct"),
        ("CT", 360.0, (), "abdomen-ct"),
        ("MR", 330.0, ("ABDOMEN", "t2_spir_tra"), "abdomen-mr"),
        ("MR", 330.0, ("HEART", "cine bssfp sa"), "cardiac-mr-bssfp"),
        ("CT", 360.0, ("HEAD",), ""),
    ],
)
def test_modality_and_body_part_choose_the_model(built_in, modality, millimeters, texts, expected):
    found = suggest_model(scan(modality, millimeters), built_in, texts)
    assert found.model_id == expected
    assert (modality in found.sentence) is bool(expected)


def test_a_model_of_the_user_comes_first_where_it_is_listed_first(built_in):
    mine = replace(next(item for item in built_in if item.id == "abdomen-ct"), id="mine")
    assert suggest_model(scan("CT", 360.0), [mine, *built_in]).model_id == "mine"


def test_a_model_that_does_not_fit_says_why(built_in):
    abdomen_ct = next(item for item in built_in if item.id == "abdomen-ct")
    assert doubt_about(scan("CT", 360.0), abdomen_ct) == ""
    assert doubt_about(scan("MR", 330.0), abdomen_ct) == (
        "Does not seem to fit this scan: made for CT, and these are not Hounsfield units but MR."
    )


def test_body_parts_are_told_by_words_and_not_by_parts_of_words(built_in):
    assert body_parts(["Abdomen^Standard", "CT_liver_3mm"]) == {"abdomen"}
    assert body_parts(["headless", "chestnut"]) == set()
    parts = {manifest.id: model_parts(manifest) for manifest in built_in}
    assert parts["abdomen-ct"] == parts["abdomen-mr"] == {"abdomen"}
    assert parts["cardiac-mr-bssfp"] == parts["left-atrium-lge"] == {"heart"}
