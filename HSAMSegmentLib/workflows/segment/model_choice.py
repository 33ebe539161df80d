"""Choose a model for a scan if none was named: the only plausible one, a suggestion, or an error listing candidates.

The panel suggests one by modality, slice size and body part, and the user decides. Elsewhere nothing is guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.orientation import slice_frame
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.options import selected_values
from HSAMSegmentLib.runtime.translation import tr as _
from HSAMSegmentLib.weights.manifest import Manifest

_HOW = "Name one with --model (command line; --start-from of finetune) or choose one in the panel."

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
"""Words of descriptions, and words of structures, that indicate a body part."""
_PART_NAMES = {
    "abdomen": _("abdomen"),
    "heart": _("heart"),
    "chest": _("chest"),
    "pelvis": _("pelvis"),
    "head": _("head"),
}


@dataclass(frozen=True)
class ModelChoice:
    """The chosen model.

    Attributes:
        model_id: ID of the model.
        sentence: why it was chosen, for the user.
    """

    model_id: str
    sentence: str


def choose_model(volume: Volume, available: Sequence[Manifest], organs: Sequence[str] = ()) -> ModelChoice:
    """Choose the only model that fits a volume.

    A model fits if its modality matches the volume's, if the slices have a size that it was made for, and if it knows
    all requested organs.

    Args:
        volume: the scan.
        available: manifests of the models that are ready to use.
        organs: names of the requested organs, may be empty.

    Raises:
        RequestError: if none or several fit; lists the candidates and says how to choose.
    """
    if not available:
        raise RequestError(
            "No model is installed. Download one ('hsam-segment models' lists them), import one from a file, or "
            "fine-tune one on a labeled scan."
        )
    reasons = {manifest.id: reason_against(volume, manifest, organs) for manifest in available}
    plausible = [manifest for manifest in available if not reasons[manifest.id]]
    if len(plausible) == 1:
        return ModelChoice(plausible[0].id, _sentence(volume, plausible[0], len(available)))
    if not plausible:
        listed = "; ".join(f"{manifest.id}: {reasons[manifest.id]}" for manifest in available)
        raise RequestError(f"No installed model seems to fit {volume.name} ({listed}). {_HOW}")
    listed = "; ".join(f"{manifest.id} ({manifest.title})" for manifest in plausible)
    raise RequestError(f"Several models could segment {volume.name}: {listed}. {_HOW}")


def reason_against(volume: Volume, manifest: Manifest, organs: Sequence[str] = ()) -> str:
    """Why a model does not fit a volume, in a few words; empty if it fits."""
    if manifest.modality == "CT" and volume.modality != "CT":
        return f"made for CT, and these are not Hounsfield units{_as_said(volume)}"
    if manifest.modality and volume.modality and manifest.modality != volume.modality:
        return f"made for {manifest.modality}, not for {volume.modality}"
    try:
        selected_values(manifest.labels, organs)
    except RequestError:
        return "does not know all of the organs asked for"
    return _field_of_view_reason(volume, manifest)


def _as_said(volume: Volume) -> str:
    return f" but {volume.modality}" if volume.modality else ""


def _field_of_view_reason(volume: Volume, manifest: Manifest) -> str:
    if manifest.field_of_view_mm is None:
        return ""
    low, high = manifest.field_of_view_mm
    height, width = slice_frame(volume.geometry, manifest.slices.plane).field_of_view_mm
    if low <= math.sqrt(height * width) <= high:
        return ""
    return f"made for slices of {low:.0f} to {high:.0f} mm, these are {height:.0f} x {width:.0f} mm"


def _sentence(volume: Volume, manifest: Manifest, count: int) -> str:
    if count == 1:
        return (
            f"The model {manifest.id} ({manifest.title}) was used: it is the only one installed, and it fits the scan."
        )
    kind = f"for {volume.modality} " if volume.modality else ""
    return (
        f"The model {manifest.id} ({manifest.title}) was used: of the {count} installed models it is the only one "
        f"{kind}that fits the scan."
    )


@dataclass(frozen=True)
class Suggestion:
    """The best model for a scan.

    Attributes:
        model_id: ID of the model, empty if none fits.
        sentence: why it was chosen.
    """

    model_id: str = ""
    sentence: str = ""


def suggest_model(volume: Volume, available: Sequence[Manifest], descriptions: Iterable[str] = ()) -> Suggestion:
    """Suggest the model to preselect.

    Unlike `choose_model`, which runs without a user to ask, this may return the first of several that fit.

    Args:
        volume: the scan; a sample of its voxels is enough.
        available: models, preferred ones first.
        descriptions: texts that may indicate the body part: DICOM's Body Part Examined, series and study, the name.
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
    """Body parts mentioned in texts."""
    words = {word for text in descriptions for word in re.findall(r"[a-z]+", text.lower())}
    return {part for part, (told_by, _structures) in _PARTS.items() if words & set(told_by)}


def model_parts(manifest: Manifest) -> set[str]:
    """Body parts of a model's structures."""
    words = {word for label in manifest.labels for word in re.findall(r"[a-z]+", label.name.lower())}
    return {part for part, (_told_by, structures) in _PARTS.items() if words & set(structures)}


def doubt_about(volume: Volume, manifest: Manifest) -> str:
    """A sentence if a model seems not to fit a scan; empty if nothing contradicts it."""
    reason = reason_against(volume, manifest)
    return _("Does not seem to fit this scan: {reason}.").format(reason=reason) if reason else ""
