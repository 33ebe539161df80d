"""Plausibility: results that fit the training scans score high, everything else says what is unusual."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.plausibility import DOUBTFUL, observe, plausibility, plausibility_warning
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.inference.result import LabelResult
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.terminology import label_set_of
from HSAMSegmentLib.phantom import abdomen_phantom, phantom_geometry
from HSAMSegmentLib.preprocess.rules import IntensityRule
from HSAMSegmentLib.training.data.cases import make_case
from HSAMSegmentLib.training.result import training_ranges
from HSAMSegmentLib.weights.loading import load_model
from HSAMSegmentLib.weights.manifest import Manifest, StructureRange

LABELS = label_set_of({1: "liver"})
WHOLE = (0, 20, 0, 20, 0, 20)
RANGE = {"liver": StructureRange(volume_ml=(0.5, 2.0), intensity=(0.4, 0.6), confidence=0.8)}


def scene(side: int, value: float, *, corner: int = 2):
    """A cube of a structure in a scan of 20 voxels of 1 mm along each axis."""
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[corner : corner + side, corner : corner + side, corner : corner + side] = 1
    box = (corner, corner + side) * 3
    result = LabelResult(next(iter(LABELS)), voxels=side**3, volume_ml=side**3 / 1000, confidence=0.8, bounding_box=box)
    return result, labels, np.where(labels == 1, value, 0.1)


def judge(result, labels, image, ranges=RANGE):
    return plausibility(observe([result], labels, image, lambda values: values, WHOLE), ranges)


def test_a_structure_as_in_the_training_scans_is_fully_plausible():
    found = judge(*scene(10, 0.5))
    assert found.score == pytest.approx(1.0)
    assert found.reasons == ()
    assert plausibility_warning(found, "a model") == ""


@pytest.mark.parametrize(
    ("side", "value", "part", "reason"),
    [
        (4, 0.5, "volume", "0.064 mL, 0.5 to 2 mL in the training scans"),
        (16, 0.5, "volume", "4.1 mL, 0.5 to 2 mL in the training scans"),
        (10, 0.2, "intensity", "liver is darker than in the training scans"),
        (10, 0.8, "intensity", "liver is brighter than in the training scans"),
    ],
)
def test_what_is_unusual_lowers_its_part_and_is_named(side, value, part, reason):
    found = judge(*scene(side, value))
    assert getattr(found, part) < DOUBTFUL + 0.01
    assert reason in "; ".join(found.reasons)
    others = {"volume", "intensity", "confidence"} - {part}
    assert all(getattr(found, other) == pytest.approx(1.0) for other in others)


def test_a_structure_at_the_border_is_never_too_small():
    assert judge(*scene(4, 0.5, corner=0)).volume == 1.0


def test_low_confidence_lowers_the_score_and_the_sentence_says_what_to_do():
    result, labels, image = scene(10, 0.5)
    found = judge(replace(result, confidence=0.2), labels, image)
    assert found.confidence == pytest.approx(0.25)
    sentence = plausibility_warning(found, "Abdomen, CT")
    assert sentence.startswith("This scan may not suit Abdomen, CT (plausibility 0.25 of 1): the model is less certain")


def test_nothing_known_means_no_score():
    assert judge(*scene(10, 0.5), ranges={}) is None
    assert plausibility([], RANGE) is None


def cases(sides, corner=2):
    for side in sides:
        _, labels, image = scene(side, 0.5, corner=corner)
        geometry = Geometry(size=(20, 20, 20), spacing_mm=(1.0, 1.0, 1.0))
        yield make_case(Volume(image, geometry, "scan"), Segmentation(labels, geometry, LABELS, "labels"))


def test_ranges_hold_every_training_scan_and_travel_in_the_manifest():
    rule = IntensityRule("window", window_hu=(0.0, 1.0))
    ranges = training_ranges(cases((8, 10, 12)), LABELS, rule)
    low, high = ranges["liver"].volume_ml
    assert low < 0.512 < 1.728 < high
    assert ranges["liver"].intensity[0] < 0.5 < ranges["liver"].intensity[1]
    assert StructureRange.from_json(ranges["liver"].to_json()) == ranges["liver"]
    model = load_model("cardiac-mr-bssfp")
    text = replace(model.manifest, training_ranges=ranges).to_json()
    assert Manifest.from_json(text).training_ranges == ranges


def test_a_structure_that_the_scan_cuts_off_says_nothing_about_volumes():
    rule = IntensityRule("window", window_hu=(0.0, 1.0))
    assert training_ranges(cases((8,), corner=0), LABELS, rule)["liver"].volume_ml is None


def test_the_result_and_its_warnings_tell_it():
    model = load_model("abdomen-mr")
    volume, _ = abdomen_phantom(seed=1, geometry=phantom_geometry((96, 80, 12), (3.5, 3.5, 15.0)))
    impossible = StructureRange(volume_ml=(1e4, 2e4), intensity=(0.99, 1.0))
    names = [label.name for label in model.manifest.labels]
    manifest = replace(model.manifest, training_ranges=dict.fromkeys(names, impossible))
    result = Segmenter(replace(model, manifest=manifest), options=SegmentOptions(threads=1)).segment(volume)
    assert result.found
    assert result.plausibility.score < DOUBTFUL
    assert any("may not suit" in warning for warning in result.warnings)
