"""A forward pass, a loss and their gradients read nothing back from the device: each value read makes a GPU wait.

The meta device has shapes and no values, so it refuses every such read, and most products with tensors left on the CPU.
"""

from __future__ import annotations

import pytest
import torch

from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.specification import HEADS, Architecture, EncoderSpec
from HSAMSegmentLib.training.loop.losses import autosam_loss, hsam_loss

TINY_SAM = {"embed_dim": 32, "depth": 2, "num_heads": 2, "global_attn_indexes": [1]}


def network_on_meta(encoder, head, *, size=64, **options):
    torch.manual_seed(0)
    form = "released" if head == "hsam" else ""
    spec = EncoderSpec(encoder, size, TINY_SAM if encoder == "custom" else {})
    return build_network(Architecture(spec, head, 3, form=form, **options)).to("meta")


def check_no_value_is_read(network):
    side = network.image_size
    images = torch.empty(2, 3, side, side, device="meta")
    labels = torch.empty(2, side, side, dtype=torch.long, device="meta")
    with torch.inference_mode():
        assert network.eval()(images).stages[-1].shape[:2] == (2, 4)
    stages = network.train()(images).stages
    for loss in (hsam_loss(stages, labels, last_weight=0.6), autosam_loss(stages[-1], labels)):
        torch.autograd.backward(loss, retain_graph=True)
    assert all(weight.grad.device.type == "meta" for weight in network.parameters() if weight.grad is not None)
    assert any(weight.grad is not None for weight in network.parameters())


@pytest.mark.parametrize("encoder", ["compact", "custom", "mobile_sam"])
def test_no_encoder_makes_a_gpu_wait(encoder):
    check_no_value_is_read(network_on_meta(encoder, "hsam"))


@pytest.mark.parametrize("size", [224, 512])
def test_incomplete_windows_make_no_gpu_wait(size):
    check_no_value_is_read(network_on_meta("mobile_sam", "linear", size=size))


@pytest.mark.parametrize("head", HEADS)
def test_no_head_makes_a_gpu_wait(head):
    check_no_value_is_read(network_on_meta("custom", head, lora_rank=2))
