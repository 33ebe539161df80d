"""What a fine-tuning may start from, and what it needs then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slicer.i18n import tr as _

from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.weights.catalog import ENCODER, MODEL
from HSAMSegmentLib.weights.manifest import Manifest
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.weights.store_entries import ModelEntry, recognize_file
from HSAMSegmentLib.workflows.finetune.cost_estimate import CostEstimate, estimate, known_pace
from HSAMSegmentLib.workflows.finetune.inspect_cases import CaseSummary

AUTO, SCRATCH, COMPACT = "auto", "scratch", "compact"
HEADS = (
    (_("As in the starting model"), ""),
    (_("H-SAM (two stages)"), "hsam"),
    (_("AutoSAM (one stage)"), "autosam"),
    (_("CNN"), "cnn"),
    (_("Linear"), "linear"),
)
_DEFAULT_HEAD = "hsam"
_NEW_HEAD_IMAGE_SIZE, _LARGEST_COMPACT = 512, 256
"""Sides of the input: with a new head on a SAM encoder, and at most with the compact one, which follows the scans."""


@dataclass(frozen=True)
class StartChoice:
    """Resolved: what the engine is told.

    Attributes:
        model: id of a model, "" for the engine's default, "scratch" for none.
        encoder: id of a SAM encoder, "" for that of the model.
        title: for the user.
    """

    model: str
    encoder: str
    title: str


class Starts:
    """The list, made from the store when the tab is shown."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._models: list[ModelEntry] = []
        self._encoders: list[ModelEntry] = []
        self._specs: dict[str, EncoderSpec] = {}

    def refresh(self) -> None:
        """Look into the store again."""
        entries = [entry for entry in self._store.models() if entry.is_present]
        here = {entry.id for entry in entries}
        self._models = [entry for entry in entries if entry.kind == MODEL and entry.encoder in here | {""}]
        self._encoders = [entry for entry in entries if entry.kind == ENCODER]
        self._specs = {}

    def combo_entries(self) -> list[tuple[str, str]]:
        """(text, data) for the combo box."""
        models = [(entry.title, entry.id) for entry in self._models]
        encoders = [(_("{title}, a new head").format(title=entry.title), entry.id) for entry in self._encoders]
        return [(_("Automatic"), AUTO), *models, *encoders, (_("Nothing (from scratch)"), SCRATCH)]

    def resolve(self, choice: str, organs: Sequence[str], modality: str) -> StartChoice:
        """What a choice of the user means for these organs and scans."""
        if choice == SCRATCH:
            return StartChoice(SCRATCH, "", _("nothing"))
        for entry in self._encoders:
            if entry.id == choice:
                return StartChoice("", entry.id, entry.title)
        for entry in self._models:
            if entry.id == choice:
                return StartChoice(entry.id, "", entry.title)
        best = self._knows_most(organs, modality)
        return StartChoice(best.id, "", best.title) if best is not None else StartChoice("", "", _("the default"))

    def title_of(self, model_id: str) -> str:
        """Title of a model, its id if it is not here."""
        return next((entry.title for entry in self._models if entry.id == model_id), model_id)

    def knows(self, model_id: str) -> bool:
        """Whether a model is here to start from."""
        return any(entry.id == model_id for entry in self._models)

    def taken_ids(self) -> set[str]:
        """Ids that no new model can have."""
        return {entry.id for entry in self._store.models()}

    def estimate(
        self,
        start: StartChoice,
        head: str,
        organs: Sequence[str],
        summaries: Sequence[CaseSummary],
        *,
        device: str,
        copied_bytes: int,
        minutes: float,
        scratch: Path,
    ) -> CostEstimate:
        """What a fine-tuning of these organs will need; `head` is "" for that of the starting model."""
        manifest = next((entry.manifest for entry in self._models if entry.id == start.model), None)
        head = head or (manifest.architecture.head if manifest is not None else _DEFAULT_HEAD)
        encoder = self._encoder(start, manifest)
        return estimate(
            summaries,
            Architecture(
                encoder=encoder,
                head=head,
                num_classes=max(1, len(organs)),
                form="paper" if head == "hsam" else "",
            ),
            includes_encoder=not start.encoder and manifest is not None and manifest.encoder_source.included,
            copied_bytes=copied_bytes,
            minutes=minutes,
            scratch=scratch,
            encoding_seconds=known_pace(self._store.folder, encoder, device),
        )

    def _encoder(self, start: StartChoice, manifest: Manifest | None) -> EncoderSpec:
        """What the images go through; files are looked into once."""
        if start.encoder:
            if start.encoder not in self._specs:
                found = recognize_file(next(entry.path for entry in self._encoders if entry.id == start.encoder))
                self._specs[start.encoder] = replace(found.encoder, image_size=_NEW_HEAD_IMAGE_SIZE)
            return self._specs[start.encoder]
        if manifest is not None and manifest.architecture.encoder.name != COMPACT:
            return manifest.architecture.encoder
        return EncoderSpec(COMPACT, _LARGEST_COMPACT)

    def _knows_most(self, organs: Sequence[str], modality: str) -> ModelEntry | None:
        """The model of the right modality that shares most organs; None if none shares any."""
        wanted = {name.lower() for name in organs}
        best, most = None, 0
        for entry in self._models:
            shared = len(wanted & {name.lower() for name in entry.organs})
            if shared > most and entry.modality in ("", modality or entry.modality):
                best, most = entry, shared
        return best
