"""Whatever the order, direction and tilt of the axes, the same places get the same labels."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from predictor_fixtures import RAW, back, oblique, reordered, segment
from small_models import brightness_model
from small_scans import bright_boxes

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.preprocess.rules import SliceRule


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_every_order_and_flip_of_the_axes_gives_the_same_segmentation(order):
    expected = segment(bright_boxes()).segmentation.array
    segmenter = Segmenter(brightness_model(), device="cpu", options=SegmentOptions(postprocess=RAW, threads=1))
    for flips in product((False, True), repeat=3):
        copy = reordered(bright_boxes(), order, flips)
        result = segmenter.segment(copy)
        assert result.segmentation.geometry == copy.geometry
        np.testing.assert_array_equal(back(result.segmentation.array, order, flips), expected)


@pytest.mark.parametrize("handed", [1, -1])
def test_oblique_and_left_handed_volumes_keep_their_geometry(handed):
    volume = oblique(bright_boxes(), handed)
    result = segment(volume)
    assert result.segmentation.geometry == volume.geometry
    assert (result.segmentation.array[volume.array == 200] > 0).mean() > 0.95


def test_mirroring_the_patient_changes_sides():
    volume = bright_boxes()
    mirrored = replace(volume, array=np.ascontiguousarray(volume.array[:, :, ::-1]))
    expected = segment(volume).segmentation.array[:, :, ::-1]
    exchanged = np.where(expected == 1, 2, np.where(expected == 2, 1, expected))
    np.testing.assert_array_equal(segment(mirrored).segmentation.array, exchanged)


def test_one_slice_is_enough():
    volume = bright_boxes()
    flat = Volume(volume.array[5:6], replace(volume.geometry, size=(60, 50, 1)))
    result = segment(flat)
    assert {item.label.name for item in result.found} == {"bright left", "bright right", "gray"}
    assert any("one slice" in warning for warning in result.warnings)


@pytest.mark.parametrize("rule", [SliceRule(framing="spacing", pixel_spacing_mm=1.0), SliceRule(framing="spacing")])
@pytest.mark.parametrize("context", ["repeat", "adjacent"])
def test_spacing_with_tiles_and_context_finds_the_same_places(rule, context):
    model = brightness_model(image_size=32, slices=replace(rule, context=context))
    labels = segment(bright_boxes(), model).segmentation.array
    gray = bright_boxes().array == 90
    assert (labels[gray] == 5).mean() > 0.85
    assert (labels[~gray] == 5).mean() < 0.05


def test_slices_of_a_flipped_volume_are_numbered_as_in_that_volume():
    order, flips = (0, 1, 2), (False, False, True)
    plain, flipped = segment(bright_boxes()), segment(reordered(bright_boxes(), order, flips))
    for before, after in zip(plain.labels, flipped.labels):
        assert [11 - entry.index for entry in reversed(before.slices)] == [entry.index for entry in after.slices]
        assert before.least_certain.confidence == pytest.approx(after.least_certain.confidence)
        assert before.confidence == pytest.approx(after.confidence)
    assert (plain.labels[0].least_certain.index, flipped.labels[0].least_certain.index) == (8, 3)


@pytest.mark.parametrize("flips", [(False, False, False), (True, True, True)])
def test_outside_of_the_region_is_background_and_inside_is_as_without_it(flips):
    order = (2, 0, 1)
    volume = reordered(bright_boxes(), order, flips)
    everything = segment(volume).segmentation.array
    roi = (2, 7, 10, 45, 8, 30)
    labels = segment(volume, roi=roi).segmentation.array
    inside = np.zeros_like(labels)
    inside[8:30, 10:45, 2:7] = everything[8:30, 10:45, 2:7]
    np.testing.assert_array_equal(labels, inside)
    assert labels.any()


@pytest.mark.parametrize(
    "roi", [(0, 61, 0, 50, 0, 12), (5, 5, 0, 50, 0, 12), (-1, 60, 0, 50, 0, 12), (0, 60, 0, 50, 12, 13), (1, 2, 3)]
)
def test_a_region_that_is_no_part_of_the_volume_is_refused(roi):
    with pytest.raises(RequestError, match="region"):
        segment(bright_boxes(), roi=roi)


@pytest.mark.parametrize("name", ["chaos_t2", "cmr_bssfp", "la_lge", "ct_totalsegmentator"])
def test_real_scans_keep_their_grid_and_their_flipped_copies_their_labels(data_folder, name):
    path = sorted((data_folder / name / "images").glob("*.nii.gz"))[0]
    volume = read_volume(path)
    segmenter = Segmenter(brightness_model(), device="cpu", options=SegmentOptions(postprocess=RAW, threads=1))
    result = segmenter.segment(volume)
    assert result.segmentation.geometry == volume.geometry
    assert result.found
    order, flips = (1, 2, 0), (True, False, True)
    copy = segmenter.segment(reordered(volume, order, flips)).segmentation.array
    np.testing.assert_array_equal(back(copy, order, flips), result.segmentation.array)
