"""Tidying a label map."""

from __future__ import annotations

import numpy as np
import pytest

from HSAMSegmentLib.errors import CancelledError, RequestError
from HSAMSegmentLib.inference.options import PostprocessOptions
from HSAMSegmentLib.inference.postprocess import change_warnings, postprocess
from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.runtime.progress import CancelToken

LIVER = Label(1, "liver", (0.8, 0.4, 0.2))
VESSELS = Label(2, "vessels", (0.2, 0.4, 0.9), single_piece=False)
LABELS = LabelSet((LIVER, VESSELS))
NOTHING = PostprocessOptions(largest_piece=False, fill_holes=False, minimum_ml=0.0)


def tidy(array: np.ndarray, **options):
    chosen = PostprocessOptions(**{"largest_piece": False, "fill_holes": False, "minimum_ml": 0.0, **options})
    result = array.copy()
    changes = postprocess(result, LABELS, voxel_volume_ml=0.001, options=chosen)
    return result, changes


def scene() -> np.ndarray:
    """A liver with a hole, a speck of liver far away, and two pieces of vessels, one of them inside of the liver."""
    array = np.zeros((20, 30, 30), np.uint8)
    array[4:16, 4:20, 4:20] = 1
    array[8:10, 8:10, 8:10] = 0
    array[12:14, 12:14, 12:14] = 2
    array[2:4, 24:28, 24:28] = 1
    array[17:19, 24:28, 24:28] = 2
    return array


def test_nothing_changes_with_everything_turned_off():
    before = scene()
    after = before.copy()
    postprocess(after, LABELS, voxel_volume_ml=0.001, options=NOTHING)
    np.testing.assert_array_equal(after, before)


def test_only_the_largest_piece_of_an_organ_that_is_one_piece_stays():
    after, changes = tidy(scene(), largest_piece=True)
    assert after[2:4, 24:28, 24:28].max() == 0
    assert (after[4:8, 4:20, 4:20] == 1).all()
    assert (changes[0].dropped_pieces, changes[0].dropped) == (1, 32)


def test_pieces_of_a_label_that_may_have_several_stay():
    after, _ = tidy(scene(), largest_piece=True)
    assert np.count_nonzero(after == 2) == np.count_nonzero(scene() == 2)


def test_pieces_that_touch_at_a_corner_are_one_piece():
    array = np.zeros((6, 6, 6), np.uint8)
    array[1:3, 1:3, 1:3] = 1
    array[3:5, 3:5, 3:5] = 1
    after, _ = tidy(array, largest_piece=True)
    np.testing.assert_array_equal(after, array)


def test_a_hole_is_filled_and_the_organ_inside_it_is_left_alone():
    after, changes = tidy(scene(), fill_holes=True)
    assert (after[8:10, 8:10, 8:10] == 1).all()
    assert (after[12:14, 12:14, 12:14] == 2).all()
    assert changes[0].filled == 8


def test_a_cavity_that_is_open_in_one_slice_is_no_hole():
    ring = np.zeros((5, 12, 12), np.uint8)
    ring[1:4, 2:10, 2:10] = 1
    ring[1:3, 4:8, 4:8] = 0
    after, _ = tidy(ring, fill_holes=True)
    np.testing.assert_array_equal(after, ring)


def test_a_cavity_open_to_the_end_of_the_volume_is_no_hole():
    ring = np.zeros((4, 12, 12), np.uint8)
    ring[:, 2:10, 2:10] = 1
    ring[:2, 4:8, 4:8] = 0
    after, _ = tidy(ring, fill_holes=True)
    np.testing.assert_array_equal(after, ring)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_of_one_slice_is_filled_in_its_plane(axis):
    ring = np.zeros((12, 12), np.uint8)
    ring[2:10, 2:10] = 1
    ring[4:8, 4:8] = 0
    after, _ = tidy(np.expand_dims(ring, axis), fill_holes=True)
    assert (np.squeeze(after, axis)[2:10, 2:10] == 1).all()


def test_pieces_smaller_than_the_smallest_volume_are_dropped_whatever_their_label():
    after, changes = tidy(scene(), minimum_ml=0.0325)
    assert after[2:4, 24:28, 24:28].max() == 0
    assert after[17:19, 24:28, 24:28].max() == 0
    assert (after[12:14, 12:14, 12:14] == 0).all()
    assert [change.dropped for change in changes] == [32, 40]


def test_a_speck_dropped_inside_of_another_organ_closes():
    after, _ = tidy(scene(), minimum_ml=0.02, fill_holes=True)
    assert (after[12:14, 12:14, 12:14] == 1).all()


def test_values_outside_of_the_label_set_are_left_alone():
    array = scene()
    array[0, 0, 0] = 9
    after, _ = tidy(array, largest_piece=True, fill_holes=True, minimum_ml=10.0)
    assert after[0, 0, 0] == 9
    assert np.count_nonzero(after) == 1


def test_a_flipped_volume_is_tidied_to_the_flipped_result():
    options = {"largest_piece": True, "fill_holes": True, "minimum_ml": 0.01}
    expected, _ = tidy(scene(), **options)
    actual, _ = tidy(np.ascontiguousarray(scene()[:, ::-1, ::-1]), **options)
    np.testing.assert_array_equal(actual[:, ::-1, ::-1], expected)


def test_the_user_is_told_when_much_of_an_organ_was_dropped():
    array = np.zeros((4, 20, 20), np.uint8)
    array[:, :10, :8] = 1
    array[:, 12:, 12:18] = 1
    _, changes = tidy(array, largest_piece=True)
    (sentence,) = change_warnings(changes, 0.001)
    assert "liver" in sentence
    assert "38 %" in sentence
    assert change_warnings(tidy(scene(), largest_piece=True)[1], 0.001) == ()


def test_an_empty_label_map_stays_empty():
    after, changes = tidy(np.zeros((3, 4, 5), np.uint8), largest_piece=True, fill_holes=True, minimum_ml=1.0)
    assert after.max() == 0
    assert [change.before for change in changes] == [0, 0]


def test_cancel_is_answered():
    token = CancelToken()
    token.cancel()
    with pytest.raises(CancelledError):
        postprocess(scene(), LABELS, voxel_volume_ml=0.001, options=PostprocessOptions(), cancel=token)


def test_a_negative_smallest_volume_is_refused():
    with pytest.raises(RequestError, match="0 mL or more"):
        PostprocessOptions(minimum_ml=-1.0)
