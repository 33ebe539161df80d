"""What a teaching may start from, and what it needs then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slicer.i18n import tr as _

from HSAMSegmentLib.checkpoints.catalog import ENCODER, MODEL
from HSAMSegmentLib.checkpoints.entries import ModelEntry
from HSAMSegmentLib.checkpoints.store import Store
from HSAMSegmentLib.jobs.teach_cases import CaseSummary
from HSAMSegmentLib.jobs.teach_estimate import TeachEstimate, estimate

AUTO, SCRATCH, COMPACT = "auto", "scratch", "compact"
HEADS = (
    (_("As in the starting model"), ""),
    (_("H-SAM (two stages)"), "hsam"),
    (_("AutoSAM (one stage)"), "autosam"),
    (_("CNN"), "cnn"),
    (_("Linear"), "linear"),
)
_DEFAULT_IMAGE_SIZE, _DEFAULT_WEIGHTS = 256, 6_000_000
_SAM_HEAD_WEIGHTS = 12_000_000


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

    def refresh(self) -> None:
        """Look into the store again."""
        entries = [entry for entry in self._store.models() if entry.is_present]
        here = {entry.id for entry in entries}
        self._models = [entry for entry in entries if entry.kind == MODEL and entry.encoder in here | {""}]
        self._encoders = [entry for entry in entries if entry.kind == ENCODER]

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
        self, start: StartChoice, summaries: Sequence[CaseSummary], copied_bytes: int, minutes: float, scratch: Path
    ) -> TeachEstimate:
        """What a teaching will need."""
        entry = next((entry for entry in self._models if entry.id == start.model), None)
        size, weights, is_large = _DEFAULT_IMAGE_SIZE, _DEFAULT_WEIGHTS, bool(start.encoder)
        if entry is not None and entry.manifest is not None:
            encoder = entry.manifest.architecture.encoder
            size, is_large = encoder.image_size, is_large or encoder.name != COMPACT
        if is_large:
            size, weights = max(size, 512), _SAM_HEAD_WEIGHTS
        return estimate(
            [summary.shape for summary in summaries],
            copied_bytes=copied_bytes,
            weight_count=weights,
            image_size=size,
            keeps_features=is_large,
            minutes=minutes,
            scratch=scratch,
        )

    def _knows_most(self, organs: Sequence[str], modality: str) -> ModelEntry | None:
        """The model of the right modality that shares most organs; None if none shares any."""
        wanted = {name.lower() for name in organs}
        best, most = None, 0
        for entry in self._models:
            shared = len(wanted & {name.lower() for name in entry.organs})
            if shared > most and entry.modality in ("", modality or entry.modality):
                best, most = entry, shared
        return best
