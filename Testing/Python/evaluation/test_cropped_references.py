"""Both structures count over the union of their extents, however small the grid of the reference is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.evaluation.metrics import compare
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.terminology import label_set_of

GRID = Geometry(size=(20, 18, 16), spacing_mm=(1.0, 1.5, 4.0), origin_mm=(-10.0, 5.0, 7.0))


def segmentation(array, geometry=GRID, name="a"):
    return Segmentation(array.astype(np.uint8), geometry, label_set_of({1: "kidney"}), name)


def drawn(*boxes):
    array = np.zeros(GRID.shape, dtype=np.uint8)
    for k, j, i in boxes:
        array[slice(*k), slice(*j), slice(*i)] = 1
    return array


def cropped(array, low, high):
    """The part low..high (i, j, k) as a file of its own would hold it."""
    origin = (GRID.ijk_to_lps @ [*low, 1.0])[:3]
    part = array[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
    geometry = replace(GRID, size=tuple(np.subtract(high, low).tolist()), origin_mm=tuple(origin.tolist()))
    return segmentation(part, geometry, "cropped")


TRUTH = drawn(((6, 10), (6, 10), (5, 9)))
FOUND = drawn(((6, 10), (6, 10), (5, 10)), ((1, 3), (2, 5), (15, 19)))


@pytest.mark.parametrize("low_high", [((5, 6, 6), (9, 10, 10)), ((4, 5, 5), (12, 12, 12)), ((0, 0, 6), (20, 18, 16))])
def test_false_positives_outside_of_a_cropped_reference_count(low_high):
    whole = compare(segmentation(FOUND), segmentation(TRUTH)).scores[0]
    part = compare(segmentation(FOUND), cropped(TRUTH, *low_high))
    score = part.scores[0]
    assert whole.dice < 0.9
    assert score.dice == whole.dice
    assert score.hd95 == pytest.approx(whole.hd95, abs=1e-6)
    assert score.prediction_ml == pytest.approx(whole.prediction_ml)
    assert any("false positive" in note for note in part.notes)


def test_a_cropped_prediction_misses_nothing_that_the_reference_has():
    whole = compare(segmentation(TRUTH), segmentation(FOUND)).scores[0]
    assert compare(cropped(TRUTH, (5, 6, 6), (9, 10, 10)), segmentation(FOUND)).scores[0].dice == whole.dice


def test_slices_are_counted_on_the_grid_of_the_reference():
    whole = compare(segmentation(FOUND), segmentation(TRUTH))
    part = compare(segmentation(FOUND), cropped(TRUTH, (4, 5, 5), (12, 12, 12)))
    assert part.first_slice == 1 - 5
    assert part.scores[0].worst_slice + 5 == whole.scores[0].worst_slice
    by_slice = dict(enumerate(whole.scores[0].slice_dice))
    for index, dice in enumerate(part.scores[0].slice_dice, start=part.first_slice):
        assert by_slice[index + 5] == dice


def test_grids_that_do_not_meet_are_refused_by_name():
    away = replace(GRID, origin_mm=(900.0, 0.0, 0.0))
    with pytest.raises(VolumeError, match='"here" and "away" do not overlap'):
        compare(segmentation(FOUND, name="here"), segmentation(TRUTH, away, "away"))
