"""The copy of a network in half precision that a CPU computes with."""

from __future__ import annotations

import pytest
import torch
from small_models import TINY_ENCODER
from torch import nn

from HSAMSegmentLib.inference.slice_predictor import half_network
from HSAMSegmentLib.models.building import HEAD_CLASSES, build_network
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.models.lora import AdaptedQkv
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec

_SAM = EncoderSpec(name="custom", image_size=64, options=TINY_ENCODER)
_COMPACT = EncoderSpec(name="compact", image_size=64)
_MOBILE = EncoderSpec(name="mobile_sam", image_size=64)
_OPTIONS = {"hsam": {"mlp_dim": 32}, "autosam": {}, "samed": {}, "cnn": {"width": 64}, "linear": {}}


def _network(encoder: EncoderSpec, head: str, rank: int = 0, planes: tuple[str, ...] = ()) -> SegmentationNetwork:
    torch.manual_seed(0)
    architecture = Architecture(
        encoder=encoder,
        head=head,
        form="paper" if head == "hsam" else "",
        num_classes=2,
        lora_rank=rank,
        options=_OPTIONS[head],
        planes=planes,
    )
    network = build_network(architecture).eval()
    for module in network.modules():
        if isinstance(module, AdaptedQkv):
            nn.init.normal_(module.lora_q_up, std=0.3)
            nn.init.normal_(module.lora_v_up, std=0.3)
    return network


def _logits(network: SegmentationNetwork, images: torch.Tensor) -> list[torch.Tensor]:
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        return [stage.float() for stage in network(images).stages]


@pytest.mark.parametrize("encoder", [_SAM, _COMPACT, _MOBILE], ids=lambda spec: spec.name)
@pytest.mark.parametrize("head", sorted(HEAD_CLASSES))
def test_it_computes_what_the_network_computes_in_this_precision(encoder, head):
    network = _network(encoder, head)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        exact = network(images).stages
    found = _logits(half_network(network, torch.bfloat16), images)
    for stage, half, direct in zip(exact, found, _logits(network, images)):
        spread = stage.std()
        assert (half - stage).abs().mean() < 0.03 * spread
        assert (half - stage).abs().mean() < 2.5 * (direct - stage).abs().mean() + 1e-3 * spread


def test_adapters_are_folded_into_the_projections():
    network = _network(_SAM, "hsam", rank=3)
    half = half_network(network, torch.bfloat16)
    assert not any(isinstance(module, AdaptedQkv) for module in half.modules())
    images = torch.rand(1, 3, 64, 64)
    for whole, folded in zip(_logits(network, images), _logits(half, images)):
        assert (whole - folded).abs().mean() < 0.03 * whole.std()


def test_the_network_itself_stays_as_it_is_and_shares_nothing_that_changes():
    network = _network(_COMPACT, "hsam", planes=("sagittal",))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    half = half_network(network, torch.bfloat16)
    assert half.encoder.stem[0].weight.dtype == torch.bfloat16
    assert half.encoder.stem[1].weight.dtype == torch.float32
    assert half.head.positional_grid.matrix.dtype == torch.float32
    assert not half.other_planes
    assert set(network.other_planes) == {"sagittal"}
    with torch.no_grad():
        for tensor in half.state_dict().values():
            tensor.zero_()
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == before[name].dtype
        torch.testing.assert_close(tensor, before[name], rtol=0.0, atol=0.0)
