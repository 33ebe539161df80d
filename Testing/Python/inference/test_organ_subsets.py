"""Wanted organs are the same whether the others are wanted or not."""

from __future__ import annotations

import numpy as np
from small_models import brightness_model
from small_scans import bright_boxes

from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.weights.catalog import load_catalog
from HSAMSegmentLib.weights.store_entries import notes_of


def test_an_enclosed_label_that_is_not_wanted_is_not_filled():
    volume = bright_boxes()
    gray_level = volume.array[segment(volume).array == 5].max()
    volume.array[2:10, 5:45, 5:55] = gray_level
    volume.array[4:8, 15:30, 10:20] = 2 * gray_level
    everything = segment(volume).array
    assert {1, 2} & set(np.unique(everything))
    subset = segment(volume, organs=("gray",)).array
    np.testing.assert_array_equal(subset, np.where(everything == 5, 5, 0))


def segment(volume, **options):
    segmenter = Segmenter(brightness_model(), device="cpu", options=SegmentOptions(threads=1, **options))
    return segmenter.segment(volume).segmentation


def test_the_orientation_caveat_of_the_synapse_model_is_a_note():
    entry = load_catalog().find("hsam_synapse_10")
    assert any("up and down" in note for note in notes_of(entry.manifest))
