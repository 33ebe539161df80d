"""From a volume to labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from predictor_fixtures import RAW, segment
from small_models import brightness_model, tiny_hsam_model
from small_scans import bright_boxes

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.options import PostprocessOptions, SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter, sided_pair
from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.preprocess.rules import IntensityRule
from HSAMSegmentLib.runtime import devices


def test_structures_are_found_where_they_are():
    volume = bright_boxes()
    result = segment(volume)
    labels = result.segmentation.array
    assert result.segmentation.geometry == volume.geometry
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(np.unique(labels), [0, 1, 2, 5])
    bright = volume.array == 200
    assert (labels[bright & (np.arange(60) < 30)] == 1).mean() > 0.95
    assert (labels[bright & (np.arange(60) >= 30)] == 2).mean() > 0.95
    assert (labels[volume.array == 90] == 5).mean() > 0.85
    assert labels[volume.array < 50].astype(bool).mean() < 0.02


def test_the_volume_is_not_changed_and_the_result_is_the_same_every_time():
    volume = bright_boxes()
    before = volume.array.copy()
    first, second = segment(volume), segment(volume)
    np.testing.assert_array_equal(volume.array, before)
    np.testing.assert_array_equal(first.segmentation.array, second.segmentation.array)
    assert first.labels == second.labels


def test_values_statistics_and_positions_agree_with_the_label_map():
    volume = bright_boxes()
    result = segment(volume)
    for item in result.labels:
        mask = result.segmentation.array == item.label.value
        assert item.voxels == np.count_nonzero(mask)
        assert item.volume_ml == pytest.approx(item.voxels * 6.0 / 1000.0)
        k, j, i = (np.flatnonzero(mask.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1)))
        assert item.bounding_box == (i[0], i[-1] + 1, j[0], j[-1] + 1, k[0], k[-1] + 1)
        assert [entry.index for entry in item.slices] == k.tolist()
        assert sum(entry.voxels for entry in item.slices) == item.voxels
        for entry in (*item.slices, item.least_certain):
            assert mask[entry.position_ijk[::-1]]
            assert entry.position_ijk[2] == entry.index
        assert 0.0 <= item.confidence <= 1.0
    assert result.slice_axis == "k"
    assert result.timings_s["total"] > 0.0


def test_only_wanted_organs_are_kept_with_the_voxels_they_have_among_all():
    everything = segment(bright_boxes()).segmentation.array
    result = segment(bright_boxes(), organs=("Gray",))
    np.testing.assert_array_equal(result.segmentation.array, np.where(everything == 5, 5, 0))
    assert [item.label.name for item in result.labels] == ["gray"]
    assert [label.name for label in result.segmentation.labels] == ["gray"]


def test_an_unknown_organ_is_refused_with_the_known_ones():
    with pytest.raises(RequestError, match=r"'heart'.*bright left, bright right, gray"):
        Segmenter(brightness_model(), device="cpu", options=SegmentOptions(organs=("heart",)))


def test_the_batch_size_changes_nothing():
    volume = bright_boxes()
    model = tiny_hsam_model()
    one = segment(volume, model, batch_size=1)
    five = segment(volume, model, batch_size=5)
    assert np.mean(one.segmentation.array == five.segmentation.array) > 0.999
    assert (one.batch_size, five.batch_size) == (1, 5)


def test_the_last_stage_alone_can_be_asked_for():
    volume, model = bright_boxes(), tiny_hsam_model()
    both, last = (segment(volume, model, stages=stages) for stages in ("both", "last"))
    assert np.any(both.segmentation.array != last.segmentation.array)
    assert [item.agreement for item in last.labels] == [item.agreement for item in both.labels]
    assert [item.margin for item in last.labels] != [item.margin for item in both.labels]


def test_post_processing_is_done_and_can_be_turned_off():
    volume = bright_boxes()
    volume.array[0, 40:48, 4:12] = 200
    raw = segment(volume)
    tidy = segment(volume, postprocess=PostprocessOptions(largest_piece=False, minimum_ml=0.5))
    assert raw.segmentation.array[0, 44, 8] == 1
    assert tidy.segmentation.array[0, 44, 8] == 0


def test_a_warm_segmenter_takes_volumes_of_any_size_one_after_the_other():
    segmenter = Segmenter(brightness_model(), device="cpu", options=SegmentOptions(postprocess=RAW))
    first = segmenter.segment(bright_boxes()).segmentation.array
    segmenter.segment(Volume(bright_boxes().array[:4, :30, :33], replace(bright_boxes().geometry, size=(33, 30, 4))))
    np.testing.assert_array_equal(segmenter.segment(bright_boxes()).segmentation.array, first)


def test_memory_mapped_and_read_only_input_of_other_types_works(tmp_path):
    expected = segment(bright_boxes()).segmentation.array
    for dtype in (np.uint16, np.float64, np.float32, np.int32):
        np.save(tmp_path / "array.npy", bright_boxes().array.astype(dtype))
        array = np.load(tmp_path / "array.npy", mmap_mode="r")
        np.testing.assert_array_equal(segment(replace(bright_boxes(), array=array)).segmentation.array, expected)


def test_labels_can_be_written_into_an_array_of_the_caller_while_slices_finish():
    volume = bright_boxes()
    labels = np.full(volume.array.shape, 7, np.uint8)
    seen = []

    def finished(array, axis, indices):
        assert array is labels
        seen.append((axis, indices, array[list(indices)].any()))

    options = SegmentOptions(postprocess=RAW, threads=1, batch_size=5)
    result = Segmenter(brightness_model(), device="cpu", options=options).segment(
        volume, labels_out=labels, on_slices=finished
    )
    assert result.segmentation.array is labels
    assert [entry[:2] for entry in seen] == [(0, (0, 1, 2, 3, 4)), (0, (5, 6, 7, 8, 9)), (0, (10, 11))]
    assert all(entry[2] for entry in seen[:2])
    np.testing.assert_array_equal(labels, segment(volume).segmentation.array)


def test_progress_rises_to_one_with_an_estimate_of_the_remaining_time():
    reports = []
    options = SegmentOptions(postprocess=RAW, threads=1, batch_size=2)
    Segmenter(brightness_model(), device="cpu", options=options).segment(bright_boxes(), progress=reports.append)
    fractions = [report.fraction for report in reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    counted = [report for report in reports if report.detail]
    assert counted[0].detail == "slice 2 of 12"
    assert counted[0].eta_seconds > 0.0


def test_nothing_found_is_said_with_what_to_check():
    volume = bright_boxes()
    volume.array[:] = np.where(volume.array > 50, 11, volume.array)
    model = brightness_model(intensity=IntensityRule("window", window_hu=(-100.0, 900.0)), modality="CT")
    result = segment(volume, model)
    assert result.found == ()
    (sentence,) = [warning for warning in result.warnings if "found none" in warning]
    assert "made for CT" in sentence


def test_a_large_dropped_piece_is_reported():
    volume = bright_boxes()
    volume.array[10:12, 38:50, 5:20] = 200
    result = segment(volume, postprocess=PostprocessOptions())
    assert any("bright left" in warning and "separate piece" in warning for warning in result.warnings)


def test_flip_averaging_keeps_sides_of_one_organ_and_says_so():
    kidneys = LabelSet(
        (Label(1, "right kidney", (1, 0, 0)), Label(2, "left kidney", (0, 1, 0)), Label(5, "gray", (0, 0, 1)))
    )
    plain = segment(bright_boxes(), brightness_model(labels=kidneys))
    flipped = segment(bright_boxes(), brightness_model(labels=kidneys), flip_averaging=True)
    np.testing.assert_array_equal(plain.segmentation.array, flipped.segmentation.array)
    assert any("tells right kidney from left kidney" in warning for warning in flipped.warnings)


def test_flip_averaging_averages_with_the_mirrored_prediction_put_back():
    ventricle = LabelSet((Label(1, "a", (1, 0, 0)), Label(2, "b", (0, 1, 0)), Label(5, "gray", (0, 0, 1))))
    gray = segment(bright_boxes(), brightness_model(labels=ventricle), flip_averaging=True, organs=("gray",))
    expected = segment(bright_boxes(), brightness_model(labels=ventricle), organs=("gray",))
    assert np.mean(gray.segmentation.array == expected.segmentation.array) > 0.99


@pytest.mark.parametrize(
    ("names", "pair"),
    [
        (("liver", "right_kidney", "left_kidney"), ("right_kidney", "left_kidney")),
        (("Kidney, left", "spleen"), None),
        (("left ventricular blood pool", "right ventricle"), None),
        (("left atrium",), None),
    ],
)
def test_sides_of_one_organ_are_recognized_by_name(names, pair):
    labels = LabelSet(tuple(Label(value, name, (1, 1, 1)) for value, name in enumerate(names, start=1)))
    assert sided_pair(labels) == pair


def test_half_precision_is_used_when_asked_for_and_finds_the_same():
    full = segment(bright_boxes(), tiny_hsam_model(), precision="full")
    mixed = segment(bright_boxes(), tiny_hsam_model(), precision="mixed")
    assert mixed.precision == "mixed (bfloat16)"
    assert full.precision == "full"
    assert mixed.precision_reason == "bfloat16: mixed precision was asked for."
    assert full.precision_reason == "float32: full precision was asked for."
    assert np.mean(full.segmentation.array == mixed.segmentation.array) > 0.97


@pytest.mark.parametrize(("flags", "expected"), [(("amx_bf16",), "mixed (bfloat16)"), (("avx2",), "full")])
def test_the_hardware_decides_the_precision_and_the_result_repeats(monkeypatch, flags, expected):
    monkeypatch.delenv(devices.PRECISION_VARIABLE, raising=False)
    monkeypatch.setattr(devices, "_cpu_flags", lambda: frozenset(flags))
    devices.native_bfloat16.cache_clear()
    try:
        first, second = (segment(bright_boxes(), tiny_hsam_model()) for _ in range(2))
    finally:
        devices.native_bfloat16.cache_clear()
    assert first.precision == second.precision == expected
    np.testing.assert_array_equal(first.segmentation.array, second.segmentation.array)
