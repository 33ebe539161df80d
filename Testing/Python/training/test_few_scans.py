"""What is different when few scans are trained on: the rate stays, and views widen."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_cases import small_case

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.training.data.sampling import GIVEN_CASE, SAME_SCAN, ValidationSet
from HSAMSegmentLib.training.loop.validator import Validator
from HSAMSegmentLib.training.recipe import Recipe, make_recipe
from HSAMSegmentLib.training.request import FinetuneRequest
from HSAMSegmentLib.weights.bundle import read_manifest
from HSAMSegmentLib.weights.store import Store


@pytest.fixture(scope="module")
def case(data_folder):
    return small_case(data_folder)


def recipe_of(case, folder: Path, *, scans: int = 1, **options) -> Recipe:
    return make_recipe(FinetuneRequest(output=folder / "finetuned.safetensors", **options), [case] * scans, None, 2)


def test_up_to_five_scans_are_finetuned_at_a_constant_rate_and_more_at_one_that_falls(case, tmp_path):
    schedules = [recipe_of(case, tmp_path, scans=scans).schedule for scans in (1, 5, 6)]
    assert schedules == ["constant", "constant", "cosine"]
    frozen = recipe_of(case, tmp_path, adaptation="frozen")
    assert (frozen.schedule, frozen.augment_first) == ("cosine", None)
    assert frozen.augment.rotation_degrees == pytest.approx(40.0)
    assert frozen.augment_at(0) == frozen.augment_at(1000)


def test_what_is_asked_for_goes_before_what_measured_best(case, tmp_path):
    asked = recipe_of(case, tmp_path, schedule="cosine", rate=1e-4)
    assert (asked.schedule, asked.rate) == ("cosine", 1e-4)


def test_views_of_few_scans_begin_as_those_of_many_and_widen(case, tmp_path):
    few, many = recipe_of(case, tmp_path), recipe_of(case, tmp_path, scans=6)
    assert few.augment_at(0) == many.augment == many.augment_at(1000)
    turns = [few.augment_at(step).rotation_degrees for step in (0, 100, 300, 500, 900)]
    assert turns == sorted(turns)
    assert turns[0] < turns[2] < turns[3] == turns[4] == few.augment.rotation_degrees


def test_several_scans_need_half_of_the_variety_that_a_single_one_needs(case, tmp_path):
    one, four, six = (recipe_of(case, tmp_path, scans=scans).augment for scans in (1, 4, 6))
    assert [rule.rotation_degrees for rule in (one, four, six)] == pytest.approx([60.0, 40.0, 20.0])
    assert one.scale[1] > four.scale[1] > six.scale[1]
    assert one.gamma[0] < four.gamma[0] < six.gamma[0]


def test_thin_slices_are_read_together_with_their_neighbors_where_it_was_measured(case, tmp_path):
    compact = [recipe_of(case, tmp_path, scans=scans).prediction for scans in (1, 6)]
    assert [rule.neighbors_mm for rule in compact] == [1.25, 1.25]
    assert [len(rule.views) for rule in compact] == [3, 1]
    assert recipe_of(case, tmp_path, head="linear").prediction.neighbors_mm == 0.0


def test_a_later_state_that_is_hardly_worse_is_kept_only_while_views_widen_and_slices_are_the_scans_own(case, tmp_path):
    def margin(scans: int, source: str) -> float:
        held = (ValidationSet(None, (0,), source),)
        setup = SimpleNamespace(validation_sets=held, steps_per_epoch=1, recipe=recipe_of(case, tmp_path, scans=scans))
        return Validator(setup, None, None, None, None)._margin

    assert margin(1, SAME_SCAN) == pytest.approx(0.02)
    assert margin(1, GIVEN_CASE) == margin(6, SAME_SCAN) == 0.0


PIXELS_MM = {
    # pixels of the scan, pixels of the starting model: pixels of the new model
    (3.0, 1.25): 1.625,  # coarser than what the starting model knows
    (1.5, 1.25): 1.5,
    (3.0, None): 3.0,
    (7.0, 1.25): 7.0,  # most pixels would be interpolated
}


@pytest.mark.parametrize(("scan", "start"), PIXELS_MM)
def test_structures_are_not_smaller_than_the_starting_model_knows_them(scan, start, tmp_path):
    geometry = Geometry(size=(96, 96, 8), spacing_mm=(scan, scan, 5.0))
    volume = Volume(np.zeros((8, 96, 96), dtype=np.int16), geometry, "scan")
    case = SimpleNamespace(volume=volume, labeled=None)
    manifest = None
    if start is not None:
        manifest = read_manifest(Store().path_of("abdomen-ct"))
        assert manifest.slices.pixel_spacing_mm == start
    made = make_recipe(FinetuneRequest(output=tmp_path / "finetuned.safetensors"), [case], manifest, 2)
    assert made.slices.pixel_spacing_mm == pytest.approx(PIXELS_MM[scan, start])
    extent = 96 * scan
    assert made.architecture.encoder.image_size * made.slices.pixel_spacing_mm >= extent * 0.999
