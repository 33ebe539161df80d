"""The traffic light of a result."""

from __future__ import annotations

import numpy as np
import pytest

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.inference.result import Plausibility
from HSAMSegmentLib.labels.label_set import Label
from HSAMSegmentLib.workflows.segment.review import MARKS, RULES, Level, ReviewNote, review, review_scan, summary
from HSAMSegmentLib.workflows.segment.segment_request import OrganOutcome, SegmentOutcome

GRID = Geometry((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))


def organ(name, confidence):
    label = Label(1, name, (1.0, 0.0, 0.0))
    if confidence is None:
        return OrganOutcome(label)
    return OrganOutcome(label, 12.0, confidence, (1, 1, 1), (1, 1, 2))


def outcome(*organs, plausibility=None):
    return SegmentOutcome(GRID, (0,) * 6, "", organs, "model", "Model", plausibility=plausibility)


@pytest.mark.parametrize(
    ("confidence", "level"),
    [
        (0.93, Level.GOOD),
        (0.85, Level.GOOD),
        (0.84, Level.LOOK),
        (0.80, Level.LOOK),
        (0.79, Level.CHECK),
        (None, Level.ABSENT),
    ],
)
def test_the_light_follows_the_confidence(confidence, level):
    assert review(organ("liver", confidence)).level is level


def test_every_level_has_a_sign_and_a_word_of_its_own():
    assert len(set(MARKS.values())) == len(Level)
    assert len({review(organ("x", value)).text for value in (0.9, 0.8, 0.4, None)}) == len(Level)


def test_a_light_that_is_not_green_says_why():
    assert review(organ("liver", 0.4)).reasons == ("The model is in doubt (confidence 40 %).",)
    assert review(organ("liver", 0.95)).reasons == ()


def test_a_reason_can_be_added_and_the_worst_one_counts():
    def is_huge(found):
        return ReviewNote(Level.CHECK, "It is larger than a patient.") if found.volume_ml > 10 else None

    found = review(organ("liver", 0.8), (*RULES, is_huge))
    assert found.level is Level.CHECK
    assert found.reasons == (
        "The model is less certain here (confidence 80 %).",
        "It is larger than a patient.",
    )


def test_the_summary_names_the_worst_first():
    assert summary(outcome(organ("liver", 0.9), organ("spleen", 0.6), organ("kidney", 0.8))) == (
        "\u25a0 Check before use: spleen.",
    )
    assert summary(outcome(organ("liver", 0.9), organ("kidney", 0.8))) == ("\u25b2 Have a look at: kidney.",)
    assert "can still be wrong" in summary(outcome(organ("liver", 0.9)))[0]
    assert summary(outcome(organ("liver", None))) == ()


@pytest.mark.parametrize(("score", "level"), [(0.9, Level.GOOD), (0.6, Level.LOOK), (0.3, Level.CHECK)])
def test_the_scan_has_a_light_of_its_own(score, level):
    found = Plausibility(score, 1.0, 1.0, score, reasons=("liver is darker than in the training scans",))
    result = outcome(organ("liver", 0.9), plausibility=found)
    assert review_scan(result).level is level
    sentence = summary(result)[1]
    assert sentence.startswith(f"{MARKS[level]} Plausibility of this scan: {score:.2f} of 1.")
    assert ("Liver is darker than in the training scans." in sentence) is (level is not Level.GOOD)


def test_without_known_ranges_nothing_is_said_of_the_scan():
    assert review_scan(outcome(organ("liver", 0.9))) is None
