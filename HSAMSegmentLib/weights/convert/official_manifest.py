"""Create manifests for official files, which have none. No torch here."""

from __future__ import annotations

import colorsys
import re
from dataclasses import replace

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.preprocess.rules import IntensityRule, SliceRule
from HSAMSegmentLib.runtime.serialization import triple
from HSAMSegmentLib.weights.catalog import Catalog
from HSAMSegmentLib.weights.convert.recognition import HEAD_TITLES, OfficialFile
from HSAMSegmentLib.weights.manifest import EncoderSource, License, Manifest

USUAL_IMAGE_SIZE = 512
NOTES_KEY = "notes"


def official_architecture(
    found: OfficialFile, *, image_size: int | None = None, encoder: EncoderSpec | None = None
) -> Architecture:
    """The architecture of an official file.

    Args:
        found: the recognized file; it must have a head.
        image_size: for a file that does not determine it; must agree with one that does. Default: 512.
        encoder: specification of the encoder it needs, required for sizes without a name.

    Raises:
        CheckpointError: if the file is an encoder, or was made for another image size.
    """
    if not found.head:
        raise CheckpointError(f"This is an encoder ({found.title}); it segments nothing without a head.")
    if image_size and found.image_size and image_size != found.image_size:
        raise CheckpointError(f"The file was made for {found.image_size} pixels ({found.title}), not for {image_size}.")
    known = found.encoder or encoder
    return Architecture(
        encoder=EncoderSpec(
            found.encoder_name,
            found.image_size or image_size or USUAL_IMAGE_SIZE,
            dict(known.options) if known is not None else {},
        ),
        head=found.head,
        num_classes=found.num_classes,
        form="released" if found.head == "hsam" else "",
        lora_rank=found.lora_rank,
    )


def manifest_for(
    found: OfficialFile,
    catalog: Catalog,
    *,
    name: str,
    image_size: int | None = None,
    labels: LabelSet | None = None,
    encoder: EncoderSpec | None = None,
) -> Manifest:
    """Describe an official file: by the catalog if it matches one of its models, else in general terms.

    Assumptions that could be wrong are listed in `training["notes"]`.

    Args:
        found: the recognized file.
        catalog: the known models.
        name: file name without suffix, for the ID and the title of an unknown model.
        image_size: for a file that does not determine it.
        labels: names of the classes, if the user knows them; the catalog is then ignored.
        encoder: specification of the encoder it needs, required for sizes without a name.

    Raises:
        CheckpointError: if the file is an encoder, was made for another image size, or the labels do not fit.
    """
    architecture = official_architecture(found, image_size=image_size, encoder=encoder)
    known = None if labels is not None else _known_manifest(architecture, catalog)
    if known is not None:
        note = (
            f"The file was taken for '{known.title}' because its layout is the same; its organs and settings come "
            "from there. If it is your own model, import it with its own label names."
        )
        return replace(known, training={**known.training, NOTES_KEY: [note]})
    if labels is not None and len(labels) != found.num_classes:
        raise CheckpointError(f"The file has {found.num_classes} classes, but {len(labels)} label names were given.")
    return _general_manifest(found, architecture, name, labels, _assumptions(found, image_size, labels))


def _known_manifest(architecture: Architecture, catalog: Catalog) -> Manifest | None:
    """The catalog's manifest of the model with exactly this architecture, if there is only one."""
    fitting = [entry.manifest for entry in catalog if entry.manifest and entry.manifest.architecture == architecture]
    return fitting[0] if len(fitting) == 1 else None


def _assumptions(found: OfficialFile, image_size: int | None, labels: LabelSet | None) -> list[str]:
    notes = []
    if labels is None:
        notes.append("The file does not tell what its classes are; they are called class 1, class 2, and so on.")
    if found.image_size is None and image_size is None:
        notes.append(f"The file does not tell its image size; the usual {USUAL_IMAGE_SIZE} pixels are assumed.")
    if found.head in ("hsam", "samed"):
        notes.append(
            "The file does not tell how gray values were scaled; percentiles of the whole scan are assumed, where a "
            "model for CT may expect a window."
        )
    return notes


def _general_manifest(
    found: OfficialFile, architecture: Architecture, name: str, labels: LabelSet | None, notes: list[str]
) -> Manifest:
    per_slice = found.head in ("autosam", "cnn", "linear")
    needs = "" if found.holds_encoder else found.encoder_name
    return Manifest(
        id=safe_id(name),
        title=f"{HEAD_TITLES[found.head]} ({name})",
        modality="",
        architecture=architecture,
        encoder_source=EncoderSource(included=found.holds_encoder, model_id=needs),
        intensity=IntensityRule("slice_minmax" if per_slice else "percentile"),
        slices=SliceRule(),
        labels=labels if labels is not None else general_labels(found.num_classes),
        license=License("unknown", "The file does not tell its terms; ask its author."),
        description=f"Imported from a file of the kind: {found.title}.",
        training={NOTES_KEY: notes},
    )


def safe_id(name: str) -> str:
    """Derive a short name from any text, with letters, digits, '-', '_' and '.' only."""
    text = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-._")
    return text or "model"


def general_labels(count: int) -> LabelSet:
    """Labels "class 1" to "class K" in colors of maximally different hue."""
    hues = [(index * 0.618034) % 1.0 for index in range(count)]
    colors = [triple(round(part, 4) for part in colorsys.hsv_to_rgb(hue, 0.6, 0.9)) for hue in hues]
    return LabelSet(tuple(Label(i + 1, f"class {i + 1}", color, single_piece=False) for i, color in enumerate(colors)))
