"""Which model to take when none was named: the only plausible one, or a question. Never a guess."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.orientation import slice_frame
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.options import selected_values
from HSAMSegmentLib.weights.manifest import Manifest

_HOW = "Name one with --model (command line) or choose one in the panel."


@dataclass(frozen=True)
class ModelChoice:
    """The model that was taken.

    Attributes:
        model_id: its id.
        sentence: why, for the user.
    """

    model_id: str
    sentence: str


def choose_model(volume: Volume, available: Sequence[Manifest], organs: Sequence[str] = ()) -> ModelChoice:
    """The one model that fits a volume.

    A model fits if its modality is the volume's, if the size of the slices is what it was made for, and if it knows all
    organs that are asked for.

    Args:
        volume: what is to be segmented.
        available: manifests of the models that could be used now.
        organs: names of the wanted organs, may be empty.

    Raises:
        RequestError: if none or several fit; names the candidates and says how to choose.
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
    """Why a model does not fit a volume, in a few words; empty if nothing speaks against it."""
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
