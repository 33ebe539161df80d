"""Volumes read along more than one plane: the mean of all, in every batch and region, and never on thick slices."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from predictor_fixtures import back, reordered, segment
from small_models import TINY_ENCODER, brightness_model, manifest, tiny_hsam_model
from small_scans import bright_boxes

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.images.orientation import slice_frame
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference import multi_planar as planes
from HSAMSegmentLib.inference.multi_planar import PlaneLogits
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.preprocess.network_input import stack_region
from HSAMSegmentLib.preprocess.rules import PredictionRule, SliceRule, is_other_plane, readable_across
from HSAMSegmentLib.runtime.progress import CancelledError, CancelToken, Progress
from HSAMSegmentLib.weights.loading import load_model, save_model
from HSAMSegmentLib.weights.manifest import Manifest

SAGITTAL = Architecture(EncoderSpec("custom", 64, TINY_ENCODER), "hsam", 3, form="released", planes=("sagittal",))
PLAIN = replace(SAGITTAL, planes=())
ROI = (5, 40, 8, 45, 10, 22)


def thin_boxes() -> Volume:
    """The boxes with slices 1 mm apart, each three times."""
    volume = bright_boxes("thin")
    columns, rows, slices = volume.geometry.size
    geometry = replace(volume.geometry, size=(columns, rows, 3 * slices), spacing_mm=(1.0, 1.0, 1.0))
    return Volume(np.repeat(volume.array, 3, axis=0), geometry, name="thin")


def two_networks(**changes):
    """A real network with random weights for each of two planes."""
    return tiny_hsam_model(architecture=SAGITTAL, **changes)


def alone(model, plane: str):
    """The network of one plane of a model, as a model that reads that plane."""
    network = model.network if plane == "axial" else model.network.other_planes[plane]
    bare = tiny_hsam_model(architecture=PLAIN, slices=SliceRule(plane=plane), prediction=model.manifest.prediction)
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("other_planes.")}
    bare.network.load_state_dict(state)
    return bare


@pytest.fixture(scope="module")
def both():
    """The thin boxes as the networks of both planes segment them."""
    return segment(thin_boxes(), two_networks())


@pytest.fixture(scope="module")
def axial_only():
    """The thin boxes as the network of the axial plane alone segments them."""
    return segment(thin_boxes(), alone(two_networks(), "axial"))


def logits_of(model, volume: Volume) -> np.ndarray:
    """The logits [K + 1, k, j, i] that labels are read from, one plane read slice by slice."""
    segmenter, found = Segmenter(model, device="cpu"), []
    run = segmenter._start(volume, lambda progress: None, CancelToken(), None, None)
    reading = segmenter._reading(run, model.manifest.slices.plane, model.network)
    rules = segmenter._rules(run)
    for index in range(len(reading)):
        found.append(reading.predictor.logits(reading.source, reading.framing, rules, index, index + 1))
    stack = torch.cat(found).numpy()
    return np.stack([reading.frame.to_volume(stack[:, channel]) for channel in range(stack.shape[1])])


def test_labels_are_those_of_the_mean_logits_of_both_planes(both, axial_only):
    model, volume = two_networks(), thin_boxes()
    axial, sagittal = (logits_of(alone(model, plane), volume) for plane in ("axial", "sagittal"))
    mean = ((axial - axial[:1]) + (sagittal - sagittal[:1])) / 2
    values = np.array([0, *(label.value for label in model.manifest.labels)])
    ordered = np.sort(mean, axis=0)
    is_clear = ordered[-1] - ordered[-2] > 0.002
    found = both.segmentation.array
    np.testing.assert_array_equal(found[is_clear], values[mean.argmax(axis=0)][is_clear])
    assert is_clear.mean() > 0.9
    assert np.any(found != axial_only.segmentation.array)


@pytest.mark.parametrize("neighbors_mm", [0.0, 1.25])
def test_neither_the_batch_size_nor_the_region_changes_a_voxel(neighbors_mm):
    model = two_networks(prediction=PredictionRule(neighbors_mm=neighbors_mm))
    whole = segment(thin_boxes(), model, batch_size=2).segmentation.array
    batched = segment(thin_boxes(), model, batch_size=7).segmentation.array
    part = segment(thin_boxes(), model, batch_size=3, roi=ROI).segmentation.array
    box = (slice(ROI[4], ROI[5]), slice(ROI[2], ROI[3]), slice(ROI[0], ROI[1]))
    np.testing.assert_array_equal(batched, whole)
    np.testing.assert_array_equal(part[box], whole[box])
    outside = np.ones(part.shape, dtype=bool)
    outside[box] = False
    assert not part[outside].any()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_however_the_scan_is_stored_the_result_is_the_same(order, both):
    flips = (True, False, True)
    stored = reordered(thin_boxes(), order, flips)
    found = segment(stored, two_networks()).segmentation.array
    np.testing.assert_array_equal(back(found, order, flips), both.segmentation.array)


def test_thick_slices_are_read_along_one_plane_and_it_is_said():
    model = two_networks()
    result = segment(bright_boxes(), model)
    expected = segment(bright_boxes(), alone(model, "axial"))
    np.testing.assert_array_equal(result.segmentation.array, expected.segmentation.array)
    (sentence,) = (warning for warning in result.warnings if "several planes" in warning)
    assert sentence.endswith("this one has 12 slices, 4.0 mm apart: it was read along one plane only.")


def test_a_single_view_is_a_single_plane(both, axial_only):
    result = segment(thin_boxes(), two_networks(), view_averaging=False)
    np.testing.assert_array_equal(result.segmentation.array, axial_only.segmentation.array)
    assert not any("planes" in warning for warning in result.warnings)
    assert result.other_planes == ()
    assert both.other_planes == ("sagittal",)


def test_slices_that_are_sagittal_already_are_not_read_twice():
    volume = reordered(thin_boxes(), (2, 1, 0), (False, False, False))
    sagittal = replace(volume.geometry, spacing_mm=(1.0, 1.0, 1.3), direction=(0, 0, 1, 0, 1, 0, -1, 0, 0))
    assert not is_other_plane("sagittal", sagittal, SliceRule())
    assert is_other_plane("axial", sagittal, SliceRule())
    result = segment(replace(volume, geometry=sagittal), two_networks())
    assert not any("planes" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("slices", "spacing_mm", "is_readable"),
    [(16, 1.0, True), (15, 1.0, False), (40, 2.0, True), (40, 2.1, False), (1, 0.1, False)],
)
def test_slices_are_read_across_where_they_are_thin_and_many(slices, spacing_mm, is_readable):
    geometry = replace(bright_boxes().geometry, size=(60, 50, slices), spacing_mm=(1.0, 1.0, spacing_mm))
    assert readable_across(geometry, SliceRule()) == is_readable


def test_the_sum_of_planes_is_kept_relative_to_the_background():
    volume = thin_boxes()
    frame = slice_frame(volume.geometry, "sagittal")
    region = stack_region(ROI, frame)
    generator = torch.Generator().manual_seed(0)
    window = region.window
    rows, columns = window.row_stop - window.row_start, window.column_stop - window.column_start
    count = region.last - region.first
    logits = [torch.randn(count, 3, rows, columns, generator=generator) for _ in range(3)]
    sums = PlaneLogits(volume.array.shape, 2)
    for part in logits[:2]:
        sums.add(part, frame, region, region.first)
        sums.planes += 1
    mean = sums.mean_with(logits[2], frame, region, region.first)
    expected = sum(part - part[:, :1] for part in logits) / 3
    torch.testing.assert_close(mean - mean[:, :1], expected, atol=5e-3, rtol=0)


def test_logits_beyond_half_precision_stay_numbers():
    volume = thin_boxes()
    frame = slice_frame(volume.geometry, "sagittal")
    region = stack_region((0, 60, 0, 50, 0, 36), frame)
    rows, columns = frame.stack_shape[1:]
    huge = torch.tensor([0.0, 1e6, -1e6]).reshape(1, 3, 1, 1).expand(60, 3, rows, columns)
    sums = PlaneLogits(volume.array.shape, 2)
    for _ in range(3):
        sums.add(huge, frame, region, 0)
        sums.planes += 1
    mean = sums.mean_with(torch.zeros(60, 3, rows, columns), frame, region, 0)
    assert torch.isfinite(mean).all()
    assert (mean.argmax(dim=1) == 1).all()


def test_progress_counts_the_slices_of_all_planes_and_never_goes_back():
    told: list[Progress] = []
    Segmenter(two_networks(), device="cpu", options=SegmentOptions(threads=1)).segment(
        thin_boxes(), progress=told.append
    )
    assert any(item.detail == "sagittal slice 60 of 60" for item in told)
    assert any(item.detail == "slice 36 of 36" for item in told)
    fractions = [item.fraction for item in told]
    assert fractions == sorted(fractions)


def test_a_slice_counts_as_often_as_the_network_sees_it():
    told: list[Progress] = []
    model = two_networks(prediction=PredictionRule(views=((0.0, 1.0), (15.0, 1.0), (-15.0, 1.0))))
    Segmenter(model, device="cpu", options=SegmentOptions(threads=1)).segment(thin_boxes(), progress=told.append)
    (half,) = (item.fraction for item in told if item.detail == "sagittal slice 60 of 60")
    assert half == pytest.approx(0.95 * 60 / (60 + 3 * 36))


def test_a_cancel_is_answered_while_the_other_plane_is_read():
    cancel, seen = CancelToken(), []

    def cancel_soon(progress: Progress) -> None:
        seen.append(progress.detail)
        if progress.detail.startswith("sagittal"):
            cancel.cancel()

    with pytest.raises(CancelledError):
        Segmenter(two_networks(), device="cpu", options=SegmentOptions(threads=1)).segment(
            thin_boxes(), progress=cancel_soon, cancel=cancel
        )
    assert seen[-1].startswith("sagittal")


def test_memory_that_runs_out_in_the_other_plane_changes_nothing(both):
    model = two_networks()
    calls = []

    def fail_once(module, inputs):
        calls.append(len(inputs[0]))
        if len(calls) == 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    model.network.other_planes["sagittal"].register_forward_pre_hook(fail_once)
    result = segment(thin_boxes(), model, batch_size=4)
    np.testing.assert_array_equal(result.segmentation.array, both.segmentation.array)
    assert any("went on with 2" in warning for warning in result.warnings)


def test_where_memory_is_short_one_plane_is_read_and_it_is_said(monkeypatch, axial_only):
    model = two_networks()
    needed = 2 * 3 * thin_boxes().array.size
    monkeypatch.setattr(planes, "free_memory", lambda device: 2 * needed)
    assert segment(thin_boxes(), model).other_planes == ("sagittal",)
    monkeypatch.setattr(planes, "free_memory", lambda device: 2 * needed - 2)
    result = segment(thin_boxes(), model)
    np.testing.assert_array_equal(result.segmentation.array, axial_only.segmentation.array)
    assert result.other_planes == ()
    assert any("read along one plane only. Choose a region" in warning for warning in result.warnings)
    assert segment(thin_boxes(), model, roi=ROI).other_planes == ("sagittal",)


def test_one_file_holds_the_networks_of_all_planes(tmp_path, both):
    model = two_networks()
    again = load_model(save_model(tmp_path / "both.safetensors", model.network, model.manifest))
    assert again.manifest.architecture.planes == ("sagittal",)
    np.testing.assert_array_equal(segment(thin_boxes(), again).segmentation.array, both.segmentation.array)
    assert "planes" not in json.loads(manifest().to_json())["architecture"], "older versions read it as it was"
    assert "planes" not in brightness_model().manifest.architecture.to_json()


@pytest.mark.parametrize("unknown", [["oblique"], ["sagittal", "sagittal"], [3], "sagittal", 7])
def test_planes_that_do_not_exist_are_one_sentence(unknown):
    data = json.loads(manifest(architecture=SAGITTAL).to_json())
    assert Manifest.from_json(json.dumps(data)).architecture == SAGITTAL
    data["architecture"]["planes"] = unknown
    with pytest.raises(CheckpointError):
        Manifest.from_json(json.dumps(data))


def test_a_file_that_lacks_the_second_network_is_refused(tmp_path):
    model = two_networks()
    path = save_model(tmp_path / "half.safetensors", alone(model, "axial").network, model.manifest)
    with pytest.raises(CheckpointError, match="lacks other_planes"):
        load_model(path)
