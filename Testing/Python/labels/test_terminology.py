"""Names get colors and codes where they are sure, and Slicer's text form of a code is written and understood."""

from __future__ import annotations

import json

import pytest

from HSAMSegmentLib.labels.label_set import Code, LabelSet, Terminology
from HSAMSegmentLib.labels.structures import KNOWN_STRUCTURES
from HSAMSegmentLib.labels.terminology import (
    fallback_color,
    find_structure,
    label_for,
    label_set_of,
    terminology_from_tag,
    terminology_tag,
)

# As in Slicer's General Anatomy and DICOM master lists.
CODES = {
    "liver": "10200004",
    "spleen": "78961009",
    "gallbladder": "28231008",
    "stomach": "69695003",
    "aorta": "15825003",
    "pancreas": "15776009",
    "left ventricle": "87878005",
    "right ventricle": "53085002",
    "left atrium": "82471001",
    "prostate": "41216001",
    "left ventricular myocardium": "74281007",
}


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_structures_have_the_codes_of_slicer_s_lists(name, code):
    assert find_structure(name).terminology.type.value == code
    assert find_structure(name).terminology.category == Code("SCT", "123037004", "Anatomical Structure")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Left kidney", "left kidney"),
        ("kidney_left", "left kidney"),
        ("KidneyLeft", "left kidney"),
        ("kidney right", "right kidney"),
        ("Kidneys", "kidney"),
        ("LIVER", "liver"),
        ("left ventricular blood pool", "left ventricle"),
        ("left atrium cavity", "left atrium"),
        ("heart_ventricle_right", "right ventricle"),
        ("inferior_vena_cava", "inferior vena cava"),
        ("oesophagus", "esophagus"),
    ],
)
def test_usual_ways_to_write_a_name_are_understood(name, meant):
    assert find_structure(name).name == meant


@pytest.mark.parametrize(
    "name", ["", "LK", "LV", "left kidney tumor", "kidney 1", "liver vessels", "Segment_1", "left", "not liver", "肝"]
)
def test_what_is_not_sure_stays_without_a_code(name):
    assert find_structure(name) is None
    assert label_for(1, name).terminology is None


def test_the_sides_of_an_organ_share_its_code_and_differ_in_the_modifier():
    right, left = find_structure("right kidney").terminology, find_structure("left kidney").terminology
    assert right.type == left.type == Code("SCT", "64033007", "Kidney")
    assert right.modifier == Code("SCT", "24028007", "Right")
    assert left.modifier == Code("SCT", "7771000", "Left")
    assert find_structure("kidney").terminology.modifier is None


def test_no_two_structures_share_a_name_or_a_code():
    codes = [structure.terminology for structure in KNOWN_STRUCTURES]
    assert len(set(codes)) == len(codes)
    for structure in KNOWN_STRUCTURES:
        for name in (structure.name, *structure.synonyms):
            assert find_structure(name) == structure


@pytest.mark.parametrize("folder", ["chaos_t2", "cmr_bssfp", "la_lge", "ct_totalsegmentator"])
def test_all_structures_of_the_data_sets_are_known(data_folder, folder):
    names = json.loads((data_folder / folder / "dataset.json").read_text())["labels"]
    for value, name in names.items():
        if value != "0":
            assert label_for(int(value), name).terminology is not None, name


def test_a_label_keeps_the_name_that_it_was_given():
    label = label_for(3, "kidney_left")
    assert (label.value, label.name) == (3, "kidney_left")
    assert label.color == find_structure("left kidney").color


def test_sets_of_labels_are_ascending_with_names_that_differ():
    labels = label_set_of({5: "cyst", 2: "cyst", 9: " ", 1: "liver"})
    assert [(label.value, label.name) for label in labels] == [
        (1, "liver"),
        (2, "cyst"),
        (5, "cyst (5)"),
        (9, "Label 9"),
    ]
    assert LabelSet.from_json(json.loads(json.dumps(labels.to_json()))) == labels


def test_colors_of_unknown_structures_differ_and_stay_the_same():
    colors = [fallback_color(value) for value in range(1, 25)]
    assert colors == [fallback_color(value) for value in range(1, 25)]
    for index, color in enumerate(colors):
        assert all(0.0 <= part <= 1.0 for part in color)
        for other in colors[:index]:
            assert sum(abs(one - two) for one, two in zip(color, other)) > 0.08


@pytest.mark.parametrize("structure", KNOWN_STRUCTURES, ids=lambda structure: structure.name)
def test_slicer_s_text_of_a_code_is_understood(structure):
    assert terminology_from_tag(terminology_tag(structure.terminology)) == structure.terminology


def test_the_text_is_the_one_that_slicer_writes():
    assert terminology_tag(find_structure("right kidney").terminology) == (
        "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure"
        "~SCT^64033007^Kidney~SCT^24028007^Right~Anatomic codes - DICOM master list~^^~^^"
    )


@pytest.mark.parametrize("text", ["", "~", "a~^^~^^~^^", "context~SCT^1^a", "no codes at all", "a~SCT^1~SCT^2~^^"])
def test_text_without_a_code_is_none(text):
    assert terminology_from_tag(text) is None


def test_meanings_with_separators_do_not_break_the_text():
    odd = Terminology(Code("SCT", "1", "a~b"), Code("99X", "2", "c^d|e"), None)
    read = terminology_from_tag(terminology_tag(odd))
    assert (read.category.value, read.type.value, read.modifier) == ("1", "2", None)
