"""From a volume to labels."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
import torch
from small_models import LABELS, brightness_model, manifest, tiny_hsam_model
from small_scans import bright_boxes

from HSAMSegmentLib.errors import CancelledError, CheckpointError, DeviceError, RequestError
from HSAMSegmentLib.inference import devices
from HSAMSegmentLib.inference.options import PostprocessOptions, SegmentOptions
from HSAMSegmentLib.inference.segmenter import Segmenter, sided_pair
from HSAMSegmentLib.progress import CancelToken
from HSAMSegmentLib.volumes.geometry import Geometry
from HSAMSegmentLib.volumes.labels import Label, LabelSet
from HSAMSegmentLib.volumes.reading import read_volume
from HSAMSegmentLib.volumes.rules import IntensityRule, SliceRule
from HSAMSegmentLib.volumes.volume import Volume

RAW = PostprocessOptions(largest_piece=False, fill_holes=False, minimum_ml=0.0)


def segment(volume: Volume, model=None, **options):
    options.setdefault("postprocess", RAW)
    options.setdefault("threads", 1)
    return Segmenter(model or brightness_model(), device="cpu", options=SegmentOptions(**options)).segment(volume)


def reordered(volume: Volume, order: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> Volume:
    """The same scan stored with its axes in another order and direction."""
    geometry = volume.geometry
    columns = geometry.direction_matrix
    array = volume.array.transpose([2 - axis for axis in reversed(order)])
    size = [geometry.size[axis] for axis in order]
    spacing = [geometry.spacing_mm[axis] for axis in order]
    direction = columns[:, list(order)].copy()
    origin = np.array(geometry.origin_mm)
    for position, flipped in enumerate(flips):
        if flipped:
            array = np.flip(array, 2 - position)
            origin = origin + direction[:, position] * spacing[position] * (size[position] - 1)
            direction[:, position] *= -1
    return Volume(
        np.ascontiguousarray(array),
        Geometry(tuple(size), tuple(spacing), tuple(origin), tuple(direction.ravel())),
        name=volume.name,
    )


def back(array: np.ndarray, order: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> np.ndarray:
    for position, flipped in enumerate(flips):
        array = np.flip(array, 2 - position) if flipped else array
    axes = [2 - axis for axis in reversed(order)]
    return array.transpose(np.argsort(axes))


def oblique(volume: Volume, handed: int = 1) -> Volume:
    """The same voxels in a tilted grid, right-handed or mirrored."""
    a, b = np.deg2rad(20.0), np.deg2rad(15.0)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    direction = about_z @ about_x @ np.diag([1.0, 1.0, handed])
    return replace(volume, geometry=replace(volume.geometry, direction=tuple(direction.ravel())))


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


def test_slices_of_a_flipped_volume_are_numbered_as_in_that_volume():
    order, flips = (0, 1, 2), (False, False, True)
    plain, flipped = segment(bright_boxes()), segment(reordered(bright_boxes(), order, flips))
    for before, after in zip(plain.labels, flipped.labels):
        assert [11 - entry.index for entry in reversed(before.slices)] == [entry.index for entry in after.slices]
        assert before.least_certain.confidence == pytest.approx(after.least_certain.confidence)
        assert before.confidence == pytest.approx(after.confidence)
    assert (plain.labels[0].least_certain.index, flipped.labels[0].least_certain.index) == (8, 3)


def test_only_wanted_organs_are_kept_with_the_voxels_they_have_among_all():
    everything = segment(bright_boxes()).segmentation.array
    result = segment(bright_boxes(), organs=("Gray",))
    np.testing.assert_array_equal(result.segmentation.array, np.where(everything == 5, 5, 0))
    assert [item.label.name for item in result.labels] == ["gray"]
    assert [label.name for label in result.segmentation.labels] == ["gray"]


def test_an_unknown_organ_is_refused_with_the_known_ones():
    with pytest.raises(RequestError, match=r"'heart'.*bright left, bright right, gray"):
        Segmenter(brightness_model(), device="cpu", options=SegmentOptions(organs=("heart",)))


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


def test_the_batch_size_changes_nothing():
    volume = bright_boxes()
    model = tiny_hsam_model()
    one = segment(volume, model, batch_size=1)
    five = segment(volume, model, batch_size=5)
    assert np.mean(one.segmentation.array == five.segmentation.array) > 0.999
    assert (one.batch_size, five.batch_size) == (1, 5)


def test_the_last_stage_alone_can_be_asked_for():
    volume = bright_boxes()
    both, last = (segment(volume, stages=stages) for stages in ("both", "last"))
    assert both.labels[0].agreement is not None
    assert last.labels[0].agreement is None
    assert last.labels[0].confidence == last.labels[0].margin


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


class Exhausted(torch.nn.Module):
    """A network that fails with a real allocation error for more than `limit` images at a time."""

    def __init__(self, inner: torch.nn.Module, limit: int) -> None:
        super().__init__()
        self.inner = inner
        self.limit = limit
        self.largest = 0

    def forward(self, images):
        if len(images) > self.limit:
            torch.empty(1 << 60, dtype=torch.uint8)
        self.largest = max(self.largest, len(images))
        return self.inner(images)


def test_running_out_of_memory_halves_the_batch_and_is_said():
    model = brightness_model()
    model.network.encoder = Exhausted(model.network.encoder, limit=2)
    result = segment(bright_boxes(), model, batch_size=8)
    np.testing.assert_array_equal(result.segmentation.array, segment(bright_boxes()).segmentation.array)
    assert model.network.encoder.largest == 2
    assert result.batch_size == 2
    assert any("Memory ran out on cpu with 8 slices at a time; went on with 4" in text for text in result.warnings)


class ExhaustedUntilMoved(Exhausted):
    """Has no memory for a single image on the first device that it is brought to."""

    def _apply(self, fn, recurse=True):
        self.limit = 100 if self.limit == 0 else 0
        return super()._apply(fn, recurse)


def test_a_slice_too_large_for_the_accelerator_goes_to_the_cpu_and_is_said():
    model = brightness_model()
    model.network.encoder = ExhaustedUntilMoved(model.network.encoder, limit=1)
    segmenter = Segmenter(model, device="cpu", options=SegmentOptions(postprocess=RAW, precision="full"))
    # To torch, "cpu:0" is another name of the CPU; to the segmenter it is a device that is not the CPU.
    segmenter.device = devices.DeviceChoice("cpu:0", "an accelerator")
    result = segmenter.segment(bright_boxes())
    np.testing.assert_array_equal(result.segmentation.array, segment(bright_boxes()).segmentation.array)
    assert result.device == "cpu"
    assert any("with a single slice; went on on the CPU" in warning for warning in result.warnings)


def test_too_little_memory_for_one_slice_on_the_cpu_is_an_error_in_words():
    model = brightness_model()
    model.network.encoder = Exhausted(model.network.encoder, limit=0)
    with pytest.raises(DeviceError, match="even a single slice"):
        segment(bright_boxes(), model, batch_size=4)


def test_other_errors_of_the_network_are_not_taken_for_memory():
    model = brightness_model()
    model.network.encoder = torch.nn.Linear(3, 3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        segment(bright_boxes(), model)


def test_weights_that_yield_no_numbers_are_refused():
    model = brightness_model()
    with torch.no_grad():
        model.network.encoder.scale.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="not a number"):
        segment(bright_boxes(), model)


def test_half_precision_is_used_when_asked_for_and_finds_the_same():
    full = segment(bright_boxes(), tiny_hsam_model())
    mixed = segment(bright_boxes(), tiny_hsam_model(), precision="mixed")
    assert mixed.precision == "mixed (bfloat16)"
    assert full.precision == "full"
    assert np.mean(full.segmentation.array == mixed.segmentation.array) > 0.97


def test_cancel_before_the_start_does_nothing():
    token = CancelToken()
    token.cancel()
    with pytest.raises(CancelledError):
        Segmenter(brightness_model(), device="cpu").segment(bright_boxes(), cancel=token)


def test_cancel_stops_inside_of_a_slice():
    model = tiny_hsam_model()
    blocks = model.network.encoder.blocks
    reached = []
    token = CancelToken()
    blocks[0].register_forward_hook(lambda *_: token.cancel())
    blocks[1].register_forward_hook(lambda *_: reached.append(1))
    with pytest.raises(CancelledError):
        Segmenter(model, device="cpu").segment(bright_boxes(), cancel=token)
    assert reached == []


def test_after_a_cancel_the_segmenter_can_be_used_again():
    token = CancelToken()
    segmenter = Segmenter(
        brightness_model(), device="cpu", options=SegmentOptions(postprocess=RAW, threads=1, batch_size=2)
    )
    with pytest.raises(CancelledError):
        segmenter.segment(bright_boxes(), cancel=token, progress=lambda report: report.detail and token.cancel())
    result = segmenter.segment(bright_boxes())
    np.testing.assert_array_equal(result.segmentation.array, segment(bright_boxes()).segmentation.array)


def test_cancel_from_another_thread_is_answered():
    model = tiny_hsam_model()
    model.network.encoder.blocks[0].register_forward_hook(lambda *_: time.sleep(0.05))
    token = CancelToken()
    timer = threading.Timer(0.2, token.cancel)
    timer.start()
    volume = Volume(np.tile(bright_boxes().array, (40, 1, 1)), replace(bright_boxes().geometry, size=(60, 50, 480)))
    with pytest.raises(CancelledError):
        Segmenter(model, device="cpu").segment(volume, cancel=token)
    timer.join()


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


def test_a_manifest_with_another_number_of_labels_than_the_network_is_refused():
    model = brightness_model()
    wrong = replace(model, manifest=manifest(labels=LabelSet(LABELS.labels[:2])))
    with pytest.raises(CheckpointError, match=r"3 .*2"):
        Segmenter(wrong, device="cpu")
