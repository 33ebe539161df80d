"""The manifest, which describes a bundle. Plain data, stored as JSON in the metadata of the safetensors file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.labels.terminology import with_present_colors
from HSAMSegmentLib.models.specification import Architecture
from HSAMSegmentLib.preprocess.rules import IntensityRule, PredictionRule, SliceRule

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class StructureRange:
    """Range of a structure in the training scans.

    Attributes:
        volume_ml: plausible volume (lowest, highest) in milliliters, None if no training scan
            shows the whole structure.
        intensity: plausible mean of the scaled intensity (lowest, highest), between 0 and 1.
        confidence: usual confidence of the finished model, None if it was not measured.
    """

    volume_ml: tuple[float, float] | None
    intensity: tuple[float, float]
    confidence: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> StructureRange:
        """Read what `to_json` wrote."""
        volume, confidence = data["volume_ml"], data.get("confidence")
        return cls(
            volume_ml=None if volume is None else (float(volume[0]), float(volume[1])),
            intensity=(float(data["intensity"][0]), float(data["intensity"][1])),
            confidence=None if confidence is None else float(confidence),
        )


@dataclass(frozen=True)
class EncoderSource:
    """Location of the encoder's tensors.

    Attributes:
        included: whether the bundle holds them itself.
        model_id: otherwise the catalog ID of the file with them ("sam_vit_b", "compact-encoder").
        sha256: hash of that file, empty if unknown.
    """

    included: bool
    model_id: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class License:
    """License of the weights.

    Attributes:
        name: short name ("CC-BY-NC-SA-4.0").
        terms: one or two sentences to read before use.
        url: address of the full text, may be empty.
        research_only: whether any use beyond research is excluded.
    """

    name: str
    terms: str = ""
    url: str = ""
    research_only: bool = True


@dataclass(frozen=True)
class Manifest:
    """Everything needed to rebuild and assess a model.

    Attributes:
        id: unique short name (letters, digits, '-', '_', '.').
        title: display name.
        modality: "CT", "MR" or "" for any.
        architecture: architecture of the network.
        encoder_source: location of its encoder's tensors.
        intensity: how intensities are scaled.
        slices: how volumes are sliced and framed.
        labels: labels of the channels 1..K, in order.
        license: license of the weights.
        description: a paragraph on its purpose and its weak points.
        citation: papers and data sets to cite.
        field_of_view_mm: plausible in-plane extent (lowest, highest), or None for any.
        training: facts about the training: data hashes, settings, versions, split.
        metrics: measured quality, and the data it was measured on.
        prediction: how the outputs are combined.
        training_ranges: ranges of the structures in the training scans, by name; empty if not measured.
    """

    id: str
    title: str
    modality: str
    architecture: Architecture
    encoder_source: EncoderSource
    intensity: IntensityRule
    slices: SliceRule
    labels: LabelSet
    license: License
    description: str = ""
    citation: tuple[str, ...] = ()
    field_of_view_mm: tuple[float, float] | None = None
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    prediction: PredictionRule = field(default_factory=PredictionRule)
    training_ranges: dict[str, StructureRange] = field(default_factory=dict)

    def to_json(self) -> str:
        """Serialize to one JSON object, with sorted keys."""
        data = {
            "schema_version": SCHEMA_VERSION,
            "id": self.id,
            "title": self.title,
            "modality": self.modality,
            "architecture": self.architecture.to_json(),
            "encoder_source": asdict(self.encoder_source),
            "intensity": self.intensity.to_json(),
            "slices": self.slices.to_json(),
            "prediction": self.prediction.to_json(),
            "labels": self.labels.to_json(),
            "license": asdict(self.license),
            "description": self.description,
            "citation": list(self.citation),
            "field_of_view_mm": self.field_of_view_mm,
            "training": self.training,
            "metrics": self.metrics,
        }
        if self.training_ranges:
            data["training_ranges"] = {name: item.to_json() for name, item in self.training_ranges.items()}
        return json.dumps(data, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read what `to_json` wrote.

        Raises:
            CheckpointError: if the text is not a manifest, or has a newer schema.
        """
        try:
            data = json.loads(text)
            version = int(data["schema_version"])
            if version > SCHEMA_VERSION:
                raise CheckpointError(
                    f"The model's manifest has schema version {version}, this program reads up to "
                    f"{SCHEMA_VERSION}. Update HSAMSegment."
                )
            extent = data.get("field_of_view_mm")
            return cls(
                id=str(data["id"]),
                title=str(data["title"]),
                modality=str(data["modality"]),
                architecture=Architecture.from_json(data["architecture"]),
                encoder_source=EncoderSource(**data["encoder_source"]),
                intensity=IntensityRule.from_json(data["intensity"]),
                slices=SliceRule.from_json(data["slices"]),
                labels=with_present_colors(LabelSet.from_json(data["labels"])),
                license=License(**data["license"]),
                description=str(data.get("description", "")),
                citation=tuple(data.get("citation", ())),
                field_of_view_mm=None if extent is None else (float(extent[0]), float(extent[1])),
                training=dict(data.get("training", {})),
                metrics=dict(data.get("metrics", {})),
                prediction=PredictionRule.from_json(data.get("prediction", {})),
                training_ranges={
                    str(name): StructureRange.from_json(item) for name, item in data.get("training_ranges", {}).items()
                },
            )
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            reason = error if isinstance(error, ValueError) else repr(error)
            raise CheckpointError(
                f"The file's manifest is not a model description this program understands ({reason})."
            ) from error
