"""Which model to preselect for a scan: by modality, size of the slices and body part. The user has the last word."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.runtime.translation import tr as _
from HSAMSegmentLib.weights.manifest import Manifest
from HSAMSegmentLib.workflows.segment.model_choice import reason_against

_PARTS = {
    "abdomen": (
        ("abdomen", "abdominal", "abd", "liver", "kidney", "kidneys", "spleen", "pancreas", "stomach", "gallbladder"),
        ("liver", "kidney", "spleen", "pancreas", "gallbladder", "stomach"),
    ),
    "heart": (
        ("heart", "cardiac", "cardio", "cmr", "ventricle", "atrium", "myocardium", "lge", "cine", "bssfp"),
        ("ventricle", "atrium", "ventricular", "myocardium", "heart"),
    ),
    "chest": (("chest", "thorax", "thoracic", "lung", "lungs", "pulmonary"), ("lung", "lungs", "trachea")),
    "pelvis": (("pelvis", "pelvic", "prostate", "bladder", "uterus"), ("prostate", "bladder", "uterus")),
    "head": (("head", "brain", "neuro", "skull"), ("brain",)),
}
"""Body part to the words of descriptions, and the words of structures, that tell it."""
_PART_NAMES = {
    "abdomen": _("abdomen"),
    "heart": _("heart"),
    "chest": _("chest"),
    "pelvis": _("pelvis"),
    "head": _("head"),
}


@dataclass(frozen=True)
class Suggestion:
    """What fits a scan best.

    Attributes:
        model_id: of the model, empty if none fits.
        sentence: why it was chosen.
    """

    model_id: str = ""
    sentence: str = ""


def suggest_model(volume: Volume, available: Sequence[Manifest], descriptions: Iterable[str] = ()) -> Suggestion:
    """The model to preselect.

    Unlike `choose_model`, which runs without a user to ask, this may be one of several that fit: the first of them.

    Args:
        volume: the scan; a sample of its voxels is enough.
        available: models, the preferred ones first.
        descriptions: texts that may tell the body part: DICOM's Body Part Examined, series and study, the name.
    """
    fitting = [manifest for manifest in available if not reason_against(volume, manifest)]
    parts = body_parts(descriptions)
    of_the_part = [manifest for manifest in fitting if parts & model_parts(manifest)]
    if parts and fitting and not of_the_part:
        return Suggestion()
    chosen = next(iter(of_the_part or fitting), None)
    if chosen is None:
        return Suggestion()
    facts = [volume.modality, *(_PART_NAMES[part] for part in sorted(parts & model_parts(chosen)))]
    known = ", ".join(fact for fact in facts if fact) or _("size of the slices")
    return Suggestion(chosen.id, _("Chosen for this scan ({facts}).").format(facts=known))


def body_parts(descriptions: Iterable[str]) -> set[str]:
    """Body parts that texts name."""
    words = {word for text in descriptions for word in re.findall(r"[a-z]+", text.lower())}
    return {part for part, (told_by, _structures) in _PARTS.items() if words & set(told_by)}


def model_parts(manifest: Manifest) -> set[str]:
    """Body parts that the structures of a model lie in."""
    words = {word for label in manifest.labels for word in re.findall(r"[a-z]+", label.name.lower())}
    return {part for part, (_told_by, structures) in _PARTS.items() if words & set(structures)}


def doubt_about(volume: Volume, manifest: Manifest) -> str:
    """A sentence if a model does not seem to fit a scan, empty if nothing speaks against it."""
    reason = reason_against(volume, manifest)
    return _("Does not seem to fit this scan: {reason}.").format(reason=reason) if reason else ""
