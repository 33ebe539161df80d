"""Derive the recipe of a training from the request and the cases: architecture, preprocessing, augmentation, rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.orientation import slice_frame
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.preprocess.rules import PLAIN_VIEW, IntensityRule, PredictionRule, SliceRule, other_plane
from HSAMSegmentLib.training.data.augment import AugmentRule, between
from HSAMSegmentLib.training.data.cases import Case
from HSAMSegmentLib.training.features.adaptation import ADAPTATIONS, FROZEN, FULL, LORA
from HSAMSegmentLib.training.request import FEW_CASES, SECOND_PLANE_CASES, FinetuneRequest
from HSAMSegmentLib.weights.manifest import Manifest

COMPACT = "compact"
COMPACT_HEAD_OPTIONS = {"mlp_dim": 256, "dropout": 0.1, "embedding_noise": 0.02}
NARROW_CNN_OPTIONS = {"width": 256}
"""A quarter of AutoSAM's width, 1.3 instead of 20.7 million weights, for much faster steps (Docs/finetuning.md)."""
SAM_ENCODERS = ("sam_vit", "custom")
DEFAULT_HEAD = "hsam"
SAM_IMAGE_SIZE = 512
_LARGEST_COMPACT = 256
_CT_WINDOW = IntensityRule("window")
_THIN_CONTEXT_MM = 5.0
_FINE_SPACING_MM = 0.8
_KNOWN_SCALE = 1.3
"""Built-in models are trained on views magnified by up to 1.3; structures that are smaller are strange to them."""
_MOST_FINER = 2.5
"""Coarser scans are not resampled to known pixels: most of these would be interpolated."""
_RATES = {FROZEN: 1e-3, LORA: 5e-4, FULL: 1e-3}
_ENCODER_SHARES = {FROZEN: 1.0, LORA: 1.0, FULL: 0.5}
_ONE_CASE_RULE = AugmentRule(
    rotation_degrees=60.0,
    scale=(0.6, 1.6),
    shift_px=12.0,
    elastic_px=7.0,
    gamma=(0.45, 2.2),
    contrast=(0.5, 1.6),
    brightness=0.15,
    bias_field=0.35,
    noise=0.07,
)
_WIDENING_STEPS = 500
_FEW_CASES_RATE = 7e-4
_FEW_CASES_VIEWS = ((0.0, 1.0), (15.0, 1.0), (-15.0, 1.0))
NEIGHBORS_MM = 1.25
"""Two slices of the left atria that it was measured on; no effect on slices more than 3.75 mm apart."""
_MANY_CASES_RULE = AugmentRule(rotation_degrees=20.0, scale=(0.8, 1.25), shift_px=6.0)


@dataclass(frozen=True)
class Recipe:
    """The network to build and how to train it.

    Attributes:
        architecture: architecture of the network.
        adaptation: "frozen", "lora" or "full".
        slices: how volumes are sliced and framed.
        intensity: how intensities are scaled.
        modality: modality of the scans.
        augment: augmentation.
        augment_first: augmentation at the first step; None for no change.
        rate: highest learning rate.
        schedule: learning rate schedule, see `FinetuneRequest`.
        encoder_share: factor on the learning rate of the encoder.
        prediction: how the outputs are combined.
        second_plane: plane of a second network; "" for none.
    """

    architecture: Architecture
    adaptation: str
    slices: SliceRule
    intensity: IntensityRule
    modality: str
    augment: AugmentRule
    augment_first: AugmentRule | None
    rate: float
    schedule: str
    encoder_share: float
    prediction: PredictionRule
    second_plane: str = ""

    def augment_at(self, step: int) -> AugmentRule:
        """The augmentation at a step, counted from 0."""
        return self.augment if self.augment_first is None else widened(self.augment_first, self.augment, step)


def make_recipe(
    request: FinetuneRequest,
    cases: Sequence[Case],
    start: Manifest | None,
    num_classes: int,
    encoder: EncoderSpec | None = None,
    *,
    keep_pixels: bool = False,
) -> Recipe:
    """Derive everything that the request leaves open.

    Args:
        request: the request.
        cases: the training cases.
        start: manifest of the starting model; None without one.
        num_classes: foreground classes K.
        encoder: specification of the requested encoder; None for that of the starting model or the default.
        keep_pixels: keep the pixel size of coarse scans, as version 0.2.0 did, instead of one that the starting model
            knows.

    Raises:
        RequestError: if options are mutually exclusive.
    """
    modality = request.modality or cases[0].volume.modality or (start.modality if start else "")
    if encoder is not None:
        encoder_name = encoder.name
    else:
        encoder_name = request.encoder or (start.architecture.encoder.name if start else COMPACT)
    adaptation = _adaptation(request, encoder_name)
    same_encoder = encoder is None and start is not None and start.architecture.encoder.name == encoder_name
    known = start if same_encoder else None
    slices, image_size = _slices(request, cases, known, encoder_name, keep_pixels)
    options = dict(encoder.options) if encoder is not None else {}
    if start is not None and same_encoder:
        options = dict(start.architecture.encoder.options)
    head = request.head or (start.architecture.head if start else DEFAULT_HEAD)
    architecture = Architecture(
        encoder=EncoderSpec(encoder_name, image_size, options),
        head=head,
        num_classes=num_classes,
        form="paper" if head == "hsam" else "",
        **_adapters(request, adaptation, known),
        options=_head_options(head, encoder_name, known),
    )
    is_steady = adaptation == FULL and len(cases) <= FEW_CASES
    schedule = request.schedule or ("constant" if is_steady else "cosine")
    is_steady_to_the_end = is_steady and schedule == "constant"
    is_second_worth_it = len(cases) in SECOND_PLANE_CASES and all(case.labeled is None for case in cases)
    has_second = is_steady_to_the_end and is_second_worth_it and _is_small_hsam(architecture)
    return Recipe(
        architecture=architecture,
        adaptation=adaptation,
        slices=slices,
        intensity=_intensity(modality, known),
        modality=modality,
        augment=augment_rule(len(cases), adaptation),
        augment_first=_MANY_CASES_RULE if is_steady else None,
        rate=request.rate or (_FEW_CASES_RATE if is_steady else _RATES[adaptation]),
        schedule=schedule,
        encoder_share=_ENCODER_SHARES[adaptation],
        prediction=prediction_rule(architecture, len(cases)),
        second_plane=other_plane([case.volume.geometry for case in cases], slices) if has_second else "",
    )


def augment_rule(cases: int, adaptation: str = FULL) -> AugmentRule:
    """The final augmentation: stronger for fewer scans.

    If the whole network is trained, augmentation starts with the ranges for many scans and widens over 500 steps, so
    that short trainings learn the plain cases first, and long ones do not overfit to few scans (Docs/finetuning.md).
    Several scans need half of the range. Cached features have a fixed set of views, also with half of the range.
    """
    if cases > FEW_CASES:
        return _MANY_CASES_RULE
    is_widest = cases == 1 and adaptation == FULL
    return _ONE_CASE_RULE if is_widest else between(_MANY_CASES_RULE, _ONE_CASE_RULE, 0.5)


def widened(first: AugmentRule, last: AugmentRule, step: int) -> AugmentRule:
    """The augmentation at a step, counted from 0, between the first and the last rule."""
    return between(first, last, min(1.0, step / _WIDENING_STEPS))


def prediction_rule(architecture: Architecture, cases: int) -> PredictionRule:
    """How the outputs are combined: the mean of both stages, as in H-SAM, or what measured better.

    With the compact encoder, the second stage alone with through-plane smoothing is better; so is, after training on
    few scans, averaging three views (test-time augmentation), for which SAM's encoders are too slow.
    """
    if not _is_small_hsam(architecture):
        return PredictionRule()
    views = _FEW_CASES_VIEWS if cases <= FEW_CASES else (PLAIN_VIEW,)
    return PredictionRule("last", views, NEIGHBORS_MM)


def _is_small_hsam(architecture: Architecture) -> bool:
    """Whether it is the network that the prediction rules were measured with."""
    return architecture.encoder.name == COMPACT and architecture.head == "hsam"


def _adaptation(request: FinetuneRequest, encoder_name: str) -> str:
    if request.adaptation and request.adaptation not in ADAPTATIONS:
        raise RequestError(f"The adaptation '{request.adaptation}' is unknown; choose {', '.join(ADAPTATIONS)}.")
    if request.lora_blocks:
        if request.adaptation not in ("", LORA):
            raise RequestError("Adapters in the last blocks (LoRA) and another kind of adaptation exclude each other.")
        if not encoder_name.startswith(SAM_ENCODERS):
            raise RequestError(f"Adapters (LoRA) need one of SAM's ViT encoders, not '{encoder_name}'.")
        return LORA
    if request.adaptation:
        return request.adaptation
    return FULL if encoder_name == COMPACT else FROZEN


def _adapters(request: FinetuneRequest, adaptation: str, start: Manifest | None) -> dict[str, Any]:
    """Rank and blocks of the adapters: as requested, or those of the starting model's encoder."""
    if adaptation == LORA:
        return {"lora_rank": request.lora_rank, "lora_blocks": request.lora_blocks}
    if start is not None:
        return {"lora_rank": start.architecture.lora_rank, "lora_blocks": start.architecture.lora_blocks}
    return {}


def _slices(
    request: FinetuneRequest, cases: Sequence[Case], start: Manifest | None, encoder_name: str, keep_pixels: bool
) -> tuple[SliceRule, int]:
    """How volumes are sliced and framed, and the side of the input."""
    if encoder_name != COMPACT:
        size = request.image_size or (start.architecture.encoder.image_size if start else SAM_IMAGE_SIZE)
        return (start.slices if start else SliceRule()), size
    frames = [slice_frame(case.volume.geometry) for case in cases]
    extent = max(max(frame.field_of_view_mm) for frame in frames)
    finest = max(max(frame.pixel_spacing_mm) for frame in frames)
    spacing = max(finest, extent / _LARGEST_COMPACT, min(_FINE_SPACING_MM, extent / 160))
    if not (keep_pixels or request.image_size):
        spacing = max(extent / _LARGEST_COMPACT, min(spacing, _coarsest_spacing_mm(spacing, start)))
    size = request.image_size or min(_LARGEST_COMPACT, 16 * math.ceil(extent / spacing / 16 - 1e-6))
    between = frames[0].slice_spacing_mm
    context = between if between > _THIN_CONTEXT_MM / 2 else _THIN_CONTEXT_MM
    rule = SliceRule(
        framing="spacing", pixel_spacing_mm=round(spacing, 4), context="adjacent", context_mm=round(context, 3)
    )
    return rule, size


def _coarsest_spacing_mm(spacing_mm: float, start: Manifest | None) -> float:
    """Coarsest pixels on which a starting model recognizes what it knows; infinite if it cannot be had or is open."""
    if start is None or start.slices.framing != "spacing":
        return math.inf
    coarsest = _KNOWN_SCALE * start.slices.pixel_spacing_mm
    return coarsest if spacing_mm <= _MOST_FINER * coarsest else math.inf


def _intensity(modality: str, start: Manifest | None) -> IntensityRule:
    if start is not None and start.modality == modality:
        return start.intensity
    return _CT_WINDOW if modality == "CT" else IntensityRule()


def _head_options(head: str, encoder_name: str, start: Manifest | None) -> dict[str, Any]:
    if start is not None and start.architecture.head == head:
        return dict(start.architecture.options)
    if head == "cnn":
        return dict(NARROW_CNN_OPTIONS)
    return dict(COMPACT_HEAD_OPTIONS) if head == "hsam" and encoder_name == COMPACT else {}
