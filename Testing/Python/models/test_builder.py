"""Every encoder goes with every head, at any class count and batch; what cannot be built is said in a sentence."""

from __future__ import annotations

import pytest
import torch

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.interface import merged_logits
from HSAMSegmentLib.models.specification import HEADS, Architecture, EncoderSpec

SMALL_SAM = {"embed_dim": 32, "depth": 2, "num_heads": 2, "global_attn_indexes": [1]}
SMALL_COMPACT = {
    "out_chans": 32,
    "stem_channels": 8,
    "stage_channels": [16, 16, 24],
    "token_dim": 32,
    "token_blocks": 1,
    "token_heads": 2,
    "skip_channels": [16, 16, 8],
}
STAGE_SIDES = {"hsam": (16, 64), "samed": (16,), "autosam": (16,), "cnn": (16,), "linear": (16,)}


def _encoder(name, size=64):
    return EncoderSpec(name, size, {"custom": SMALL_SAM, "compact": SMALL_COMPACT}.get(name, {}))


def _architecture(encoder, head, *, classes=3, size=64, form=None, **rest):
    if form is None:
        form = "paper" if head == "hsam" else ""
    options = {"hsam": {"mlp_dim": 64}, "samed": {"mlp_dim": 64}, "autosam": {"mlp_dim": 64}, "cnn": {"width": 64}}
    options = {**options.get(head, {}), **rest.pop("options", {})}
    return Architecture(_encoder(encoder, size), head, classes, form=form, options=options, **rest)


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("encoder", ["custom", "compact"])
def test_a_network_has_one_channel_per_class_and_one_for_the_background(encoder, head, classes):
    network = build_network(_architecture(encoder, head, classes=classes)).eval()
    with torch.no_grad():
        stages = network(torch.rand(2, 3, 64, 64)).stages
    assert [tuple(stage.shape) for stage in stages] == [(2, classes + 1, side, side) for side in STAGE_SIDES[head]]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("encoder", ["custom", "compact"])
def test_an_image_gives_the_same_logits_alone_and_in_a_batch(encoder, head):
    torch.manual_seed(0)
    options = {"rectified": False} if head == "linear" else {}
    network = build_network(_architecture(encoder, head, options=options)).eval().double()
    images = torch.rand(3, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        together = merged_logits(network(images), (64, 64))
        alone = torch.cat([merged_logits(network(image[None]), (64, 64)) for image in images])
    assert (together - alone).abs().max() < 1e-10
    assert (together[0] - together[1]).abs().max() > 1e-7


@pytest.mark.parametrize("head", HEADS)
def test_half_precision_computes_the_same_to_its_own_rounding(head):
    torch.manual_seed(0)
    form = "paper" if head == "hsam" else ""
    network = build_network(Architecture(EncoderSpec("compact", 64), head, 3, form=form)).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        single = merged_logits(network(images), (64, 64))
        with torch.autocast("cpu", torch.bfloat16):
            half = merged_logits(network(images), (64, 64)).float()
    assert 0 < (single - half).abs().max() < 0.2 * single.std()


FULL_SIZES = [("sam_vit_l", "hsam"), ("sam_vit_h", "hsam"), ("compact", "hsam")]
FULL_SIZES += [(encoder, head) for encoder in ("sam_vit_b", "mobile_sam") for head in HEADS]


@pytest.mark.parametrize(("encoder", "head"), FULL_SIZES)
def test_encoders_and_heads_fit_together_at_full_size(encoder, head):
    spec = EncoderSpec(encoder, 128)
    architecture = Architecture(spec, head, 4, form="paper" if head == "hsam" else "")
    # Shapes alone are enough for the large ones; MobileSAM's tables of positions need real numbers.
    with torch.device("cpu" if encoder == "mobile_sam" else "meta"), torch.no_grad():
        network = build_network(architecture).eval()
        stages = network(torch.empty(2, 3, 128, 128)).stages
    assert [tuple(stage.shape) for stage in stages] == [(2, 5, 2 * side, 2 * side) for side in STAGE_SIDES[head]]


@pytest.mark.parametrize("size", [16, 48, 96])
@pytest.mark.parametrize("encoder", ["custom", "compact"])
def test_any_image_size_that_is_a_multiple_of_16_works(encoder, size):
    network = build_network(_architecture(encoder, "hsam", size=size)).eval()
    with torch.no_grad():
        stages = network(torch.rand(1, 3, size, size)).stages
    assert [stage.shape[-1] for stage in stages] == [size // 4, size]


@pytest.mark.parametrize("head", ["hsam", "samed", "autosam", "linear"])
def test_finer_maps_of_the_encoder_reach_the_logits_unless_told_otherwise(head):
    with_skips = build_network(_architecture("compact", head)).eval()
    without = build_network(_architecture("compact", head, options={"skip_channels": []})).eval()
    for network, expected in ((with_skips, True), (without, False)):
        features = network.encode(torch.rand(1, 3, 64, 64))
        disturbed = features._replace(skips=tuple(skip + 1 for skip in features.skips))
        with torch.no_grad():
            before, after = network.decode(features).stages, network.decode(disturbed).stages
        assert [not torch.equal(a, b) for a, b in zip(before, after)] == [expected] * len(before)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_every_finer_map_sharpens_the_second_stage(index):
    network = build_network(_architecture("compact", "hsam")).eval()
    features = network.encode(torch.rand(1, 3, 64, 64))
    skips = [skip.detach().requires_grad_() for skip in features.skips]
    network.decode(features._replace(skips=tuple(skips))).stages[1].square().sum().backward()
    assert skips[index].grad.abs().max() > 0


def test_adapters_are_attached_to_the_last_blocks_only():
    network = build_network(_architecture("custom", "samed", lora_rank=2, lora_blocks=1))
    plain = build_network(_architecture("custom", "samed"))
    added = {key for key in network.state_dict() if key not in plain.state_dict()}
    assert added
    assert all("blocks.1." in key for key in added)


def test_new_adapters_change_nothing():
    torch.manual_seed(0)
    plain = build_network(_architecture("custom", "samed")).eval()
    adapted = build_network(_architecture("custom", "samed", lora_rank=4)).eval()
    missing = adapted.load_state_dict(plain.state_dict(), strict=False)
    assert missing.unexpected_keys == []
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(plain(images).stages[0], adapted(images).stages[0])


def test_building_says_which_encoder_it_does_not_know():
    with pytest.raises(CheckpointError, match="encoder 'resnet' is unknown"):
        build_network(Architecture(EncoderSpec("resnet", 64), "samed", 3))


def test_building_says_which_option_does_not_fit():
    with pytest.raises(CheckpointError, match=r"head 'samed' cannot be built.*wings"):
        build_network(_architecture("compact", "samed", options={"wings": 2}))
    with pytest.raises(CheckpointError, match="heads do not divide"):
        build_network(_architecture("compact", "samed", options={"num_heads": 7}))


def test_building_says_what_the_head_takes_and_what_the_encoder_gives():
    with pytest.raises(CheckpointError, match="embeddings of 64 channels, the encoder gives 32"):
        build_network(_architecture("compact", "samed", options={"embed_dim": 64}))
    with pytest.raises(CheckpointError, match=r"maps of \(16,\) channels, the encoder gives \(\)"):
        build_network(_architecture("custom", "samed", options={"skip_channels": [16]}))


def test_adapters_on_an_encoder_without_blocks_are_refused():
    with pytest.raises(CheckpointError, match="no blocks"):
        build_network(_architecture("compact", "samed", lora_rank=2))


def test_an_architecture_survives_its_manifest():
    architecture = _architecture("compact", "hsam", options={"skip_channels": [16, 16], "embed_dim": 32})
    again = Architecture.from_json(architecture.to_json())
    ours, theirs = (build_network(item).state_dict() for item in (architecture, again))
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"encoder": {"name": "custom", "image_size": 64, "options": {**SMALL_SAM, "depth": 10**9}}}, "depth"),
        ({"encoder": {"name": "custom", "image_size": 64, "options": {**SMALL_SAM, "embed_dim": 10**7}}}, "embed_dim"),
        ({"encoder": {"name": "custom", "image_size": 64, "options": {**SMALL_SAM, "mlp_ratio": 1e308}}}, "mlp_ratio"),
        ({"encoder": {"name": "custom", "image_size": 16 * 10**6, "options": SMALL_SAM}}, "image_size"),
        ({"options": {"depth": 10**9}}, "depth"),
        ({"num_classes": 10**9}, "num_classes"),
        ({"lora_rank": 10**9}, "lora_rank"),
    ],
)
def test_sizes_that_no_network_has_are_refused_before_anything_is_built(changes, name):
    described = {**_architecture("custom", "samed").to_json(), **changes}
    with pytest.raises(CheckpointError, match=f"asks for {name} = "):
        Architecture.from_json(described)
