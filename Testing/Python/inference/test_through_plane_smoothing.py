"""Logits averaged over neighboring slices: right at the ends, in every batch and region, and never on thick slices."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from model_files import manifest
from predictor_fixtures import segment
from scipy import ndimage
from small_models import brightness_model, tiny_hsam_model
from small_scans import bright_boxes

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.inference.through_plane_smoothing import ThroughPlaneSmoothing
from HSAMSegmentLib.preprocess.rules import PredictionRule
from HSAMSegmentLib.runtime.progress import CancelledError, CancelToken
from HSAMSegmentLib.weights.manifest import Manifest

COUNT, SPACING_MM, SIGMA_MM = 14, 0.625, 1.25
SMOOTHED = PredictionRule(neighbors_mm=SIGMA_MM)


class Stack:
    """Random logits of two stages, and what was asked of them."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.stages = [torch.randn(COUNT, 3, 4, 5, generator=generator) for _ in range(2)]
        self.asked: list[int] = []

    def compute(self, first: int, last: int) -> list[torch.Tensor]:
        self.asked += range(first, last)
        return [stage[first:last] for stage in self.stages]


def thin_boxes(name: str = "thin") -> Volume:
    """The boxes with slices 1 mm apart, each three times, and one slice in the middle that flickers."""
    volume = bright_boxes(name)
    columns, rows, slices = volume.geometry.size
    geometry = replace(volume.geometry, size=(columns, rows, 3 * slices), spacing_mm=(1.0, 1.0, 1.0))
    array = np.repeat(volume.array, 3, axis=0)
    array[18] = 10
    return Volume(array, geometry, name=name)


def gaussian_over_slices(stage: torch.Tensor) -> np.ndarray:
    """The same mean from SciPy, whose zeros outside are put right at the ends by the sum of the weights."""

    def blurred(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter1d(values, SIGMA_MM / SPACING_MM, axis=0, mode="constant", truncate=3.0)

    return blurred(stage.double().numpy()) / blurred(np.ones(stage.shape))


@pytest.mark.parametrize("batch", [1, 3, 5, COUNT])
def test_batches_of_any_size_give_the_gaussian_mean_and_ask_for_every_slice_once(batch):
    stack = Stack()
    mean = ThroughPlaneSmoothing(sigma_mm=SIGMA_MM, slice_spacing_mm=SPACING_MM, count=COUNT)
    parts = [mean.stages(stack.compute, first, min(first + batch, COUNT)) for first in range(0, COUNT, batch)]
    assert stack.asked == list(range(COUNT))
    for number, stage in enumerate(stack.stages):
        found = torch.cat([part[number] for part in parts]).numpy()
        np.testing.assert_allclose(found, gaussian_over_slices(stage), atol=1e-5)


def test_a_part_of_the_stack_is_averaged_with_what_lies_outside_of_it():
    stack = Stack()
    mean = ThroughPlaneSmoothing(sigma_mm=SIGMA_MM, slice_spacing_mm=SPACING_MM, count=COUNT)
    expected = gaussian_over_slices(stack.stages[0])
    (found, _) = mean.stages(stack.compute, 7, 9)
    np.testing.assert_allclose(found.numpy(), expected[7:9], atol=1e-5)
    assert stack.asked == list(range(1, COUNT))
    (earlier, _) = mean.stages(stack.compute, 2, 5)
    np.testing.assert_allclose(earlier.numpy(), expected[2:5], atol=1e-5)


def test_after_forgetting_the_same_batch_comes_out_the_same():
    stack = Stack()
    mean = ThroughPlaneSmoothing(sigma_mm=SIGMA_MM, slice_spacing_mm=SPACING_MM, count=COUNT)
    mean.stages(stack.compute, 0, 4)
    before = mean.stages(stack.compute, 4, 8)
    mean.forget()
    after = mean.stages(stack.compute, 4, 6)
    torch.testing.assert_close(after[0], before[0][:2])


@pytest.mark.parametrize(
    ("sigma_mm", "spacing_mm", "count"), [(0.0, 1.0, 5), (1.25, 5.0, 5), (1.25, 0.0, 5), (1.25, 0.5, 1)]
)
def test_without_a_neighbor_within_reach_nothing_is_touched(sigma_mm, spacing_mm, count):
    stack = Stack()
    mean = ThroughPlaneSmoothing(sigma_mm=sigma_mm, slice_spacing_mm=spacing_mm, count=count)
    assert mean.reach == 0
    found = mean.stages(stack.compute, 0, 1)
    assert found[0].data_ptr() == stack.stages[0].data_ptr()


def test_a_slice_that_flickers_is_mended_by_its_neighbors():
    flickering = segment(thin_boxes(), brightness_model()).segmentation.array
    mended = segment(thin_boxes(), brightness_model(prediction=SMOOTHED)).segmentation.array
    assert not flickering[18].any()
    overlap = np.mean(mended[18][flickering[17] > 0] == flickering[17][flickering[17] > 0])
    assert overlap > 0.9


def test_neither_the_batch_size_nor_the_region_changes_a_voxel():
    model = tiny_hsam_model(prediction=SMOOTHED)
    whole = segment(thin_boxes(), model, batch_size=1).segmentation.array
    batched = segment(thin_boxes(), model, batch_size=7).segmentation.array
    part = segment(thin_boxes(), model, batch_size=3, roi=(5, 40, 8, 50, 10, 22)).segmentation.array
    assert np.any(whole != segment(thin_boxes(), tiny_hsam_model()).segmentation.array)
    np.testing.assert_array_equal(batched, whole)
    np.testing.assert_array_equal(part[10:22, 8:50, 5:40], whole[10:22, 8:50, 5:40])


def test_thick_slices_come_out_as_without():
    expected = segment(bright_boxes(), tiny_hsam_model())
    found = segment(bright_boxes(), tiny_hsam_model(prediction=SMOOTHED))
    np.testing.assert_array_equal(found.segmentation.array, expected.segmentation.array)
    assert [item.confidence for item in found.labels] == [item.confidence for item in expected.labels]


def test_when_memory_runs_out_between_neighbors_nothing_is_lost():
    model = brightness_model(prediction=SMOOTHED)
    expected = segment(thin_boxes(), model, batch_size=4).segmentation.array
    calls = []

    def fail_once(module, inputs):
        calls.append(len(inputs[0]))
        if len(calls) == 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    handle = model.network.register_forward_pre_hook(fail_once)
    result = segment(thin_boxes(), model, batch_size=4)
    handle.remove()
    np.testing.assert_array_equal(result.segmentation.array, expected)
    assert any("went on with 2" in warning for warning in result.warnings)


def test_a_cancel_is_answered_between_the_neighbors_of_the_first_batch():
    model, cancel, calls = brightness_model(prediction=SMOOTHED), CancelToken(), []

    def count_and_cancel(module, inputs):
        calls.append(len(inputs[0]))
        cancel.cancel()

    model.network.register_forward_pre_hook(count_and_cancel)
    with pytest.raises(CancelledError):
        Segmenter(model, device="cpu", options=SegmentOptions(threads=1, batch_size=1)).segment(
            thin_boxes(), cancel=cancel
        )
    assert calls == [1]


@pytest.mark.parametrize("width", [-1.0, 21.0, float("nan"), "wide"])
def test_a_width_that_makes_no_sense_is_one_sentence(width):
    data = json.loads(manifest(prediction=SMOOTHED).to_json())
    assert Manifest.from_json(json.dumps(data)).prediction == SMOOTHED
    data["prediction"]["neighbors_mm"] = width
    with pytest.raises(CheckpointError, match="manifest is not a model description"):
        Manifest.from_json(json.dumps(data))
