"""Small models whose answers are known without training, for tests of everything around the network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.interface import Features, SegmentationNetwork, StageLogits
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.preprocess.rules import IntensityRule, SliceRule
from HSAMSegmentLib.weights.bundle import save_bundle
from HSAMSegmentLib.weights.loading import LoadedModel
from HSAMSegmentLib.weights.manifest import EncoderSource, License, Manifest

TINY_ENCODER = {"embed_dim": 32, "depth": 2, "num_heads": 2, "global_attn_indexes": [1], "window_size": 7}

BRIGHT_LEFT = Label(1, "bright left", (0.9, 0.3, 0.2))
BRIGHT_RIGHT = Label(2, "bright right", (0.2, 0.6, 0.9))
GRAY = Label(5, "gray", (0.4, 0.8, 0.3), single_piece=False)
LABELS = LabelSet((BRIGHT_LEFT, BRIGHT_RIGHT, GRAY))


class BrightnessHead(nn.Module):
    """Tells gray from bright pixels, and bright ones in the left half of the image from those in the right half.

    It depends on the place in the image, so a slice that is turned or mirrored on its way gives another answer.
    """

    def forward(self, features: Features, labels: Tensor | None = None) -> StageLogits:
        image = features.embedding[:, 1:2]
        columns = torch.linspace(-1.0, 1.0, image.shape[-1], device=image.device).expand_as(image)
        bright = ((image - 0.6) * 40.0).clamp(-4.0, 8.0)
        left = bright - torch.relu(columns * 200.0)
        right = bright - torch.relu(-columns * 200.0)
        gray = (4.0 - (image - 0.4).abs() * 40.0).clamp(-4.0, 4.0)
        logits = torch.cat([torch.zeros_like(image), left, right, gray], dim=1)
        return StageLogits((nn.functional.avg_pool2d(logits, 4), logits))


class ImageEncoder(nn.Module):
    """Hands the image through; has a parameter, as every encoder has."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale


def manifest(image_size: int = 64, labels: LabelSet = LABELS, **changes) -> Manifest:
    fields = {
        "id": "brightness",
        "title": "Brightness",
        "modality": "",
        "architecture": Architecture(
            EncoderSpec("custom", image_size, TINY_ENCODER), "hsam", len(labels), form="released"
        ),
        "encoder_source": EncoderSource(included=True),
        "intensity": IntensityRule(),
        "slices": SliceRule(),
        "labels": labels,
        "license": License("CC0"),
    }
    return Manifest(**{**fields, **changes})


def brightness_model(image_size: int = 64, **changes) -> LoadedModel:
    """A model that segments by brightness and side."""
    network = SegmentationNetwork(
        encoder=ImageEncoder(), head=BrightnessHead(), image_size=image_size, num_classes=len(LABELS)
    )
    return LoadedModel(network.eval(), manifest(image_size, **changes), Path("brightness.safetensors"))


def tiny_hsam_model(image_size: int = 64, **changes) -> LoadedModel:
    """A real H-SAM with a tiny encoder and random weights."""
    description = manifest(image_size, **changes)
    torch.manual_seed(0)
    return LoadedModel(build_network(description.architecture).eval(), description, Path("tiny.safetensors"))


def write_bundle(folder: Path, name: str = "tiny", **changes) -> Path:
    """A bundle of a real network with random weights that finds something in every scan."""
    architecture = Architecture(EncoderSpec("custom", 64, TINY_ENCODER), "linear", len(LABELS))
    description = manifest(**{"id": name, "title": f"Model {name}", "architecture": architecture, **changes})
    torch.manual_seed(3)
    network = build_network(architecture).eval()
    with torch.no_grad():
        # The last ReLU would leave ties at zero, which the background wins.
        for parameter in network.head.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return save_bundle(folder / f"{name}.safetensors", network, description)
