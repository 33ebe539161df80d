"""One set of colors: told apart on a screen, and neighbors in a gray print."""

from __future__ import annotations

import itertools
import math

import pytest

from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.labels.structures import KNOWN_STRUCTURES
from HSAMSegmentLib.labels.terminology import find_structure, with_present_colors
from HSAMSegmentLib.report.preview_picture import outline_colors

ABDOMEN = (
    *("spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta"),
    *("inferior vena cava", "portal vein", "pancreas", "right adrenal gland", "left adrenal gland"),
)
TOGETHER = {
    "abdomen": (*ABDOMEN, "duodenum", "small intestine", "colon"),
    "heart": (
        *("left ventricular myocardium", "left ventricle", "right ventricle", "left atrium", "right atrium"),
        "aorta",
    ),
    "chest": ("right lung", "left lung", "trachea", "esophagus", "aorta", "heart", "spinal cord", "thyroid"),
    "pelvis": ("bladder", "prostate", "uterus", "colon", "small intestine", "right femur", "left femur"),
}
NEIGHBORS = (
    *(("liver", name) for name in ("right kidney", "gallbladder", "stomach", "inferior vena cava", "portal vein")),
    *(("liver", name) for name in ("duodenum", "right adrenal gland", "esophagus", "colon")),
    *(("left kidney", name) for name in ("spleen", "left adrenal gland", "pancreas", "colon")),
    *(("spleen", name) for name in ("stomach", "pancreas", "colon", "left adrenal gland")),
    *(("aorta", name) for name in ("inferior vena cava", "esophagus", "left adrenal gland", "pancreas", "duodenum")),
    *(("inferior vena cava", name) for name in ("portal vein", "right adrenal gland", "duodenum", "pancreas")),
    *(("right kidney", "right adrenal gland"), ("stomach", "pancreas"), ("portal vein", "pancreas")),
    *(("left ventricular myocardium", name) for name in ("left ventricle", "right ventricle", "left atrium")),
    *(("left ventricle", "left atrium"), ("right ventricle", "right atrium"), ("left atrium", "right atrium")),
    *(("bladder", "prostate"), ("bladder", "uterus"), ("colon", "small intestine"), ("trachea", "esophagus")),
)
TOLD_APART, TOLD_APART_IN_GRAY = 0.3, 0.1


def color(name):
    return find_structure(name).color


def gray(name):
    return sum(weight * part for weight, part in zip((0.299, 0.587, 0.114), color(name)))


@pytest.mark.parametrize("group", TOGETHER)
def test_structures_that_are_seen_together_have_colors_apart(group):
    pairs = itertools.combinations(TOGETHER[group], 2)
    assert [pair for pair in pairs if math.dist(color(pair[0]), color(pair[1])) < TOLD_APART] == []


@pytest.mark.parametrize("pair", NEIGHBORS, ids=" and ".join)
def test_neighbors_are_apart_in_a_gray_print(pair):
    assert abs(gray(pair[0]) - gray(pair[1])) >= TOLD_APART_IN_GRAY


@pytest.mark.parametrize("group", [ABDOMEN, TOGETHER["heart"]], ids=["abdomen", "heart"])
def test_pictures_use_the_colors_of_the_segments(group):
    labels = [Label(value, name, color(name)) for value, name in enumerate(group, 1)]
    assert outline_colors(labels) == {label.value: label.color for label in labels}


def test_every_structure_keeps_its_code():
    codes = {structure.name: structure.terminology.type.value for structure in KNOWN_STRUCTURES}
    assert (codes["liver"], codes["right kidney"], codes["left ventricle"]) == ("10200004", "64033007", "87878005")


def test_a_model_of_before_gets_the_present_colors_and_a_chosen_color_stays():
    former = LabelSet(
        (
            Label(1, "Liver", (221 / 255, 130 / 255, 101 / 255)),
            Label(2, "left kidney", (185 / 255, 102 / 255, 83 / 255)),
            Label(3, "spleen", (0.0, 1.0, 0.0)),
            Label(4, "my tumor", (221 / 255, 130 / 255, 101 / 255)),
        )
    )
    present = {label.name: label.color for label in with_present_colors(former)}
    assert present["Liver"] == color("liver")
    assert present["left kidney"] == color("left kidney")
    assert present["spleen"] == (0.0, 1.0, 0.0)
    assert present["my tumor"] == former.by_value(4).color


def test_the_built_in_models_show_them():
    from HSAMSegmentLib.weights.store import Store

    shown = [label for entry in Store().models() if entry.manifest is not None for label in entry.manifest.labels]
    known = [label for label in shown if find_structure(label.name) is not None]
    assert known, "the built-in models know structures"
    assert [label.name for label in known if label.color != color(label.name)] == []
