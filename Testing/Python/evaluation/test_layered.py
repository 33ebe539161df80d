"""Comparing segmentations that lie on layers, against the comparison of plain label maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from HSAMSegmentLib.errors import RequestError, VolumeError
from HSAMSegmentLib.evaluation.label_matching import StructurePair
from HSAMSegmentLib.evaluation.layered_comparison import (
    ONLY_FIRST,
    ONLY_SECOND,
    OTHER_STRUCTURE,
    compare_layered,
)
from HSAMSegmentLib.evaluation.metrics import compare
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.labels.grids import voxel_offset
from HSAMSegmentLib.labels.layered_segmentation import LayeredSegmentation, LayeredStructure
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.terminology import label_for, label_set_of

NAMES = ("liver", "right kidney", "left kidney", "spleen")
PAIRS = [StructurePair(name, position, position) for position, name in enumerate(NAMES)]
TURN = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])


@pytest.fixture(scope="module")
def case(data_folder):
    """Labels of an abdomen, and the same labels as a somewhat wrong prediction."""
    labels = read_volume(data_folder / "chaos_t2" / "labels" / "chaos_t2_02.nii.gz")
    array = labels.array.astype(np.uint8)
    wrong = np.roll(array, (1, 3, -2), axis=(0, 1, 2))
    wrong[wrong == 4] = 0
    return wrong, array, labels.geometry


def structure(name, layer, value):
    return LayeredStructure(label_for(1, name), layer, value)


def layered(array, geometry, name="A", grid=None):
    structures = tuple(structure(item, 0, value) for value, item in enumerate(NAMES, 1))
    return LayeredSegmentation(name, ((array, geometry),), structures, grid)


def cropped(array, geometry):
    """Only the part that has labels, as Slicer keeps it."""
    low, high = np.argwhere(array).min(axis=0), np.argwhere(array).max(axis=0) + 1
    origin = (geometry.ijk_to_lps @ [*low[::-1], 1.0])[:3]
    part = array[tuple(slice(*bounds) for bounds in zip(low, high))]
    return part, replace(geometry, size=part.shape[::-1], origin_mm=tuple(float(value) for value in origin))


def expected_scores(wrong, array, geometry):
    labels = label_set_of(dict(enumerate(NAMES, 1)))
    return compare(Segmentation(wrong, geometry, labels), Segmentation(array, geometry, labels)).scores


def assert_same_numbers(scores, expected):
    assert [score.name for score in scores] == [score.name for score in expected]
    assert [score.state for score in scores] == [score.state for score in expected]
    for metric in ("dice", "jaccard", "hd95", "asd", "prediction_ml", "reference_ml"):
        for ours, theirs in zip(scores, expected):
            value = getattr(theirs, metric)
            assert getattr(ours, metric) == (None if value is None else pytest.approx(value, rel=1e-9))


def test_cropped_layers_give_the_numbers_of_whole_label_maps(case):
    wrong, array, geometry = case
    result = compare_layered(layered(*cropped(wrong, geometry)), layered(*cropped(array, geometry), "B"), PAIRS)
    assert_same_numbers(result.comparison.scores, expected_scores(wrong, array, geometry))
    assert result.comparison.notes == ()


def test_structures_that_overlap_are_each_compared_in_full(case):
    wrong, array, geometry = case
    structures = (structure("liver", 0, 1), structure("abdomen", 1, 1))
    sides = []
    for name, labels in (("A", wrong), ("B", array)):
        masks = ((labels == 1).astype(np.uint8), (labels > 0).astype(np.uint8))
        sides.append(LayeredSegmentation(name, tuple((mask, geometry) for mask in masks), structures))
    pairs = [StructurePair("abdomen", 1, 1), StructurePair("liver", 0, 0)]
    scores = compare_layered(*sides, pairs).comparison.scores
    expected = [
        2.0 * np.sum(ours & theirs) / (ours.sum() + theirs.sum())
        for ours, theirs in ((wrong > 0, array > 0), (wrong == 1, array == 1))
    ]
    assert [score.dice for score in scores] == pytest.approx(expected)


def test_the_disagreement_says_which_side_has_what(case):
    wrong, array, geometry = case
    result = compare_layered(layered(wrong, geometry), layered(array, geometry, "B"), PAIRS)
    expected = np.zeros(array.shape, np.uint8)
    expected[(wrong > 0) & (array == 0)] = ONLY_FIRST
    expected[(wrong == 0) & (array > 0)] = ONLY_SECOND
    expected[(wrong > 0) & (array > 0) & (wrong != array)] = OTHER_STRUCTURE
    offset = voxel_offset(result.geometry, geometry)
    part = tuple(slice(start, start + size) for start, size in zip(offset[::-1], result.disagreement.shape))
    assert np.array_equal(expected[part], result.disagreement)
    assert np.count_nonzero(expected) == np.count_nonzero(result.disagreement)


def test_the_worst_place_is_a_voxel_that_differs(case):
    wrong, array, geometry = case
    result = compare_layered(layered(wrong, geometry), layered(array, geometry, "B"), PAIRS)
    for (i, j, k), score in zip(result.worst_ijk, result.comparison.scores):
        assert result.disagreement[k, j, i] != 0
        assert score.slice_dice[k] == min(value for value in score.slice_dice if value is not None)


def test_a_turned_grid_changes_nothing_when_both_turn_with_it(case):
    wrong, array, geometry = case
    turned = replace(geometry, direction=tuple((TURN @ geometry.direction_matrix).ravel()))
    result = compare_layered(layered(wrong, turned), layered(array, turned, "B"), PAIRS)
    assert_same_numbers(result.comparison.scores, expected_scores(wrong, array, geometry))


def test_another_grid_is_brought_to_that_of_the_reference_and_said(case):
    wrong, array, geometry = case
    finer = replace(
        geometry, size=tuple(2 * size for size in geometry.size), spacing_mm=tuple(s / 2 for s in geometry.spacing_mm)
    )
    shift = geometry.direction_matrix @ (np.asarray(geometry.spacing_mm) / -4)
    finer = replace(finer, origin_mm=tuple(np.asarray(geometry.origin_mm) + shift))
    doubled = wrong.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    result = compare_layered(layered(doubled, finer), layered(array, geometry, "B"), PAIRS)
    assert_same_numbers(result.comparison.scores, expected_scores(wrong, array, geometry))
    (note,) = result.comparison.notes
    assert "another grid" in note


def test_what_only_one_side_has_is_missed_or_not_compared(case):
    wrong, array, geometry = case
    pairs = [StructurePair("liver", 0, None), StructurePair("spleen", None, 3)]
    result = compare_layered(layered(wrong, geometry), layered(array, geometry, "B"), pairs)
    (spleen,) = result.comparison.scores
    assert (spleen.state, spleen.dice) == ("missed", 0.0)
    ((name, volume),) = result.not_compared
    assert (name, volume) == ("liver", pytest.approx((wrong == 1).sum() * geometry.voxel_volume_ml))


def test_structures_without_voxels_are_absent_or_missed(case):
    _, array, geometry = case
    nothing = LayeredSegmentation("A", (), (structure("liver", None, 1), structure("tumor", None, 2)))
    other = replace(layered(array, geometry, "B"), structures=(structure("liver", 0, 1), structure("tumor", None, 1)))
    result = compare_layered(nothing, other, [StructurePair("liver", 0, 0), StructurePair("tumor", 1, 1)])
    assert [score.state for score in result.comparison.scores] == ["missed", "absent"]
    assert result.worst_ijk[1] is None


def test_two_empty_segmentations_are_refused_with_a_sentence(case):
    _, array, geometry = case
    empty = layered(np.zeros_like(array), geometry)
    with pytest.raises(RequestError, match="nothing to compare"):
        compare_layered(empty, empty, PAIRS)


def test_segmentations_of_different_places_are_refused_with_a_sentence(case):
    wrong, array, geometry = case
    elsewhere = replace(geometry, origin_mm=(9000.0, 0.0, 0.0))
    with pytest.raises(VolumeError, match="outside of the scan"):
        compare_layered(layered(wrong, elsewhere), layered(array, geometry, "B", grid=geometry), PAIRS)


def test_labels_beyond_the_scan_of_the_reference_still_count():
    geometry = Geometry(size=(10, 10, 10))
    array = np.zeros((10, 10, 10), np.uint8)
    array[2:5, 2:5, 2:5] = 1
    shifted = replace(geometry, origin_mm=(-8.0, 0.0, 0.0))
    reach = np.zeros((10, 10, 10), np.uint8)
    reach[2:5, 2:5, 0:] = 1
    liver = (structure("liver", 0, 1),)
    first = LayeredSegmentation("A", ((reach, shifted),), liver)
    second = LayeredSegmentation("B", ((array, geometry),), liver, geometry)
    (score,) = compare_layered(first, second, [StructurePair("liver", 0, 0)]).comparison.scores
    assert score.prediction_ml == pytest.approx(0.09)
    assert score.dice == 0.0
