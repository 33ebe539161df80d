"""What an accelerator would compute, by tensors that have a device, a shape and a type, and no values.

The meta device refuses to give a value back, and each value read makes a GPU wait. PyTorch's fake CUDA tensors refuse
operations between two devices and have the types that autocast gives on a card; they need a PyTorch built with CUDA.
The numbers themselves are compared by `Testing/Device/check.sh`, on a card.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from small_models import manifest
from torch._subclasses.fake_tensor import FakeTensorMode

from HSAMSegmentLib.images.orientation import slice_frame
from HSAMSegmentLib.inference import confidence
from HSAMSegmentLib.inference.multi_planar import plane_reading
from HSAMSegmentLib.inference.options import SegmentOptions, check_roi
from HSAMSegmentLib.inference.slice_predictor import BatchRules, SlicePredictor
from HSAMSegmentLib.inference.test_time_augmentation import mean_over_augmentations
from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.specification import HEADS, Architecture, EncoderSpec
from HSAMSegmentLib.phantom import abdomen_phantom, phantom_geometry
from HSAMSegmentLib.preprocess.network_input import stack_region
from HSAMSegmentLib.training.loop.losses import autosam_loss, hsam_loss

TINY_SAM = {"embed_dim": 32, "depth": 2, "num_heads": 2, "global_attn_indexes": [1]}
NETWORKS = [("compact", "hsam"), ("mobile_sam", "hsam"), *(("custom", head) for head in HEADS)]


@pytest.fixture
def cuda_build(monkeypatch):
    """A PyTorch that takes itself for one with a card of compute capability 8.0."""
    if not torch.backends.cuda.is_built():
        pytest.skip("needs a PyTorch built with CUDA; a card is not needed")
    try:
        with FakeTensorMode():
            torch.empty(1, device="cuda").copy_(torch.empty(1, device="cuda"))
    except RuntimeError:
        pytest.skip("the fake tensors of this PyTorch need a card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)


def network(encoder, head, device, *, size=64, classes=3):
    form = "released" if head == "hsam" else ""
    spec = EncoderSpec(encoder, size, TINY_SAM if encoder == "custom" else {})
    rank = 2 if encoder == "custom" else 0
    with torch.device(device):
        return build_network(Architecture(spec, head, classes, form=form, lora_rank=rank))


def losses(network, images):
    labels = torch.empty(images.shape[0], *images.shape[2:], dtype=torch.long, device=images.device)
    stages = network.train()(images).stages
    return hsam_loss(stages, labels, last_weight=0.6), autosam_loss(stages[-1], labels)


def sampled(maps, grids, **options):
    assert maps.device == grids.device
    return maps.new_empty(*maps.shape[:2], *grids.shape[1:3])


def check_no_value_is_read(network):
    images = torch.empty(2, 3, network.image_size, network.image_size, device="meta")
    with torch.inference_mode():
        assert network.eval()(images).stages[-1].shape[:2] == (2, 4)
    for loss in losses(network, images):
        torch.autograd.backward(loss, retain_graph=True)
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    assert {gradient.device.type for gradient in gradients} == {"meta"}


@pytest.mark.parametrize(("encoder", "head"), NETWORKS)
def test_neither_a_network_nor_a_loss_makes_a_gpu_wait(encoder, head):
    check_no_value_is_read(network(encoder, head, "meta"))


@pytest.mark.parametrize("size", [224, 512])
def test_incomplete_windows_make_no_gpu_wait(size):
    check_no_value_is_read(network("mobile_sam", "linear", "meta", size=size))


def test_networks_and_losses_run_on_a_cuda_device_in_every_precision(cuda_build):
    for encoder, head in NETWORKS:
        with FakeTensorMode():
            built = network(encoder, head, "cuda")
            images = torch.empty(2, 3, built.image_size, built.image_size, device="cuda")
            for dtype in (None, torch.bfloat16, torch.float16):
                with nullcontext() if dtype is None else torch.autocast("cuda", dtype=dtype):
                    with torch.inference_mode():
                        stages = built.eval()(images).stages
                    both = losses(built, images)
                assert {part.device.type for part in (*stages, *both)} == {"cuda"}
                assert {loss.dtype for loss in both} == {torch.float32}


@pytest.mark.parametrize("precision", ["full", "mixed"])
def test_slices_become_labels_on_a_cuda_device(cuda_build, monkeypatch, precision):
    arrays = []
    monkeypatch.setattr(confidence, "to_array", arrays.append)
    # Fake tensors have no values to be finite.
    monkeypatch.setattr(
        SlicePredictor,
        "_stages",
        lambda self, images, rules: mean_over_augmentations(
            lambda view: self._one_view(view, rules), images, rules.views
        ),
    )
    # It has no form for fake tensors of CUDA.
    monkeypatch.setattr(torch.nn.functional, "grid_sample", sampled)
    volume, _ = abdomen_phantom(geometry=phantom_geometry(spacing_mm=(6.0, 6.0, 12.0)))
    frame, described = slice_frame(volume.geometry), manifest()
    region = stack_region(check_roi(None, volume.geometry), frame)
    with FakeTensorMode():
        built = network("compact", "hsam", "cuda")
        built.to = lambda *place, **layout: built
        reading = plane_reading(
            built,
            described,
            volume,
            frame,
            region,
            device="cuda:0",
            options=SegmentOptions(precision=precision, batch_size=2),
        )
        rules = BatchRules(last_stage_only=False, mirrored=True, window=region.window)
        reading.predictor.predict(reading.source, reading.framing, rules, 0, 4)
    assert {array.device.type for array in arrays} == {"cuda"}
    assert [array.dtype for array in arrays[:2]] == [torch.uint8, torch.uint8]
