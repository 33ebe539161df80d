"""What happens when memory runs out, numbers fail, or somebody cancels."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from predictor_fixtures import RAW, segment
from small_models import LABELS, brightness_model, manifest, tiny_hsam_model
from small_scans import bright_boxes

from HSAMSegmentLib.errors import CancelledError, CheckpointError, DeviceError
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.runtime import devices
from HSAMSegmentLib.runtime.progress import CancelToken


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
    result = segment(bright_boxes(), model, batch_size=8, precision="full")
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
    with pytest.raises(RuntimeError, match=r"size|shape"):
        segment(bright_boxes(), model)


def test_weights_that_yield_no_numbers_are_refused():
    model = brightness_model()
    with torch.no_grad():
        model.network.encoder.scale.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="not a number"):
        segment(bright_boxes(), model)


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


def test_a_manifest_with_another_number_of_labels_than_the_network_is_refused():
    model = brightness_model()
    wrong = replace(model, manifest=manifest(labels=LabelSet(LABELS.labels[:2])))
    with pytest.raises(CheckpointError, match=r"3 .*2"):
        Segmenter(wrong, device="cpu")
