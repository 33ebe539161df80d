"""Small real model files for the tests of checkpoints."""

from __future__ import annotations

from HSAMSegmentLib.labels.label_set import Code, Label, LabelSet, Terminology
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.preprocess.rules import IntensityRule, SliceRule
from HSAMSegmentLib.weights.manifest import EncoderSource, License, Manifest

ANATOMY = Code("SCT", "123037004", "Anatomical Structure")
TINY_ENCODER = {"embed_dim": 96, "depth": 4, "num_heads": 3, "global_attn_indexes": [1, 3]}
LIVER = Label(1, "Liver", (0.3, 0.6, 0.2), Terminology(ANATOMY, Code("SCT", "10200004", "Liver")))
KIDNEY = Label(
    2,
    "Right kidney",
    (0.5, 0.2, 0.9),
    Terminology(ANATOMY, Code("SCT", "64033007", "Kidney"), Code("SCT", "24028007", "Right")),
    single_piece=False,
)


def tiny_architecture(**changes: object) -> Architecture:
    """A linear head on SAM's encoder at a tenth of its width, 64 pixels, two classes."""
    facts = {"encoder": EncoderSpec("custom", 64, TINY_ENCODER), "head": "linear", "num_classes": 2, **changes}
    return Architecture(**facts)  # type: ignore[arg-type]


def manifest(model_id: str = "tiny", **changes: object) -> Manifest:
    """A manifest with every field in use."""
    facts = {
        "id": model_id,
        "title": "Tiny model - für Tests",
        "modality": "CT",
        "architecture": tiny_architecture(),
        "encoder_source": EncoderSource(included=True),
        "intensity": IntensityRule("window", (-125.0, 275.0)),
        "slices": SliceRule(plane="axial"),
        "labels": LabelSet((LIVER, KIDNEY)),
        "license": License("CC-BY-4.0", "Name the authors.", "https://creativecommons.org/licenses/by/4.0/", False),
        "description": "Finds what it was built to find.",
        "citation": ("Somebody, 2024",),
        "field_of_view_mm": (250.0, 500.0),
        "training": {"epochs": 3},
        "metrics": {"dice": {"Liver": 0.5}},
        **changes,
    }
    return Manifest(**facts)  # type: ignore[arg-type]
