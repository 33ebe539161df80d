"""Models for a series of scans: found, chosen, loaded once and cached, one at a time to save memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.weights.catalog import MODEL
from HSAMSegmentLib.weights.loading import LoadedModel, load_model
from HSAMSegmentLib.weights.manifest import Manifest
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.workflows.segment.model_choice import choose_model

_Stamp = tuple[int, int]


class ModelCache:
    """Provides the model for a scan; the last one stays in memory until its file changes."""

    def __init__(self, store: Store | None = None, *, model: LoadedModel | None = None) -> None:
        """Store where models are looked up.

        Args:
            store: where IDs are looked up; None for the default store.
            model: a loaded model to use for every scan; None to load by reference.
        """
        self._store = store
        self._given = model
        self._loaded: tuple[str, _Stamp, LoadedModel] | None = None
        self._hashes: dict[tuple[Path, _Stamp], str] = {}

    @property
    def store(self) -> Store:
        """Where IDs are looked up."""
        if self._store is None:
            self._store = Store()
        return self._store

    def for_volume(self, volume: Volume, reference: str, organs: Sequence[str]) -> tuple[LoadedModel, str]:
        """The model for a scan, and a sentence on why it was chosen (empty if it was named).

        Args:
            volume: the scan.
            reference: ID or file of a model; "" to choose the only one that fits.
            organs: names of the requested organs; empty for all.

        Raises:
            RequestError: if no model was named and none or several fit.
            ModelNotFoundError, CheckpointError: if it cannot be loaded.
        """
        named = self.named(reference)
        if named is not None:
            return named, ""
        choice = choose_model(volume, self.available(), organs)
        return self.load(choice.model_id), choice.sentence

    def named(self, reference: str) -> LoadedModel | None:
        """The model for every scan; None if each scan gets the one that fits.

        Raises:
            ModelNotFoundError, CheckpointError: if it cannot be loaded.
        """
        return self.load(reference) if self._given is not None or reference else None

    def load(self, reference: str) -> LoadedModel:
        """Load a model by ID or file; an unchanged one in memory is reused.

        Raises:
            ModelNotFoundError, CheckpointError: if it cannot be loaded.
        """
        if self._given is not None:
            return self._given
        if self._loaded is None or self._loaded[:2] != (reference, _stamp(self._loaded[2].path)):
            self._loaded = None
            model = load_model(reference, store=self.store)
            self._loaded = (reference, _stamp(model.path), model)
        return self._loaded[2]

    def available(self) -> Sequence[Manifest]:
        """Manifests of the models that are ready to use."""
        return [
            entry.manifest
            for entry in self.store.models()
            if entry.kind == MODEL and entry.manifest is not None and not self.store.requirements(entry.id)
        ]

    def hash_of(self, model_id: str) -> str:
        """SHA-256 of the file of the loaded model, or of the stored one with this ID; empty without one."""
        loaded = self._given or (self._loaded[2] if self._loaded else None)
        if loaded is not None and loaded.manifest.id == model_id:
            path: Path | None = loaded.path
        else:
            path = next((entry.path for entry in self.store.models() if entry.id == model_id), None)
        if path is None or not path.is_file():
            return ""
        key = (path, _stamp(path))
        if key not in self._hashes:
            self._hashes[key] = self.store.sha256(path)
        return self._hashes[key]


def _stamp(path: Path) -> _Stamp:
    """A value that changes if a weights file changes."""
    if not path.is_file():
        return (0, 0)
    status = path.stat()
    return (status.st_mtime_ns, status.st_size)
