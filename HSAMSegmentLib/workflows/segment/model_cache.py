"""Models for a series of scans: found, chosen, loaded once and kept warm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.options import SegmentOptions, selected_values
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.runtime.devices import choose_device
from HSAMSegmentLib.weights.catalog import MODEL
from HSAMSegmentLib.weights.loading import LoadedModel, load_model
from HSAMSegmentLib.weights.manifest import Manifest
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.workflows.segment.model_choice import choose_model


class WarmModels:
    """Hands out a `Segmenter` for each scan; the last one stays in memory."""

    def __init__(
        self,
        model: str | Path | LoadedModel | None = None,
        *,
        store: Store | None = None,
        device: str = "auto",
        options: SegmentOptions | None = None,
    ) -> None:
        """Check what can be checked before the first scan is read.

        Args:
            model: id, file, a loaded model, or None to choose one for each scan.
            store: where ids are looked up, None for the default one.
            device: as for `Segmenter`.
            options: how to segment.

        Raises:
            DeviceError: if the device does not work.
            ModelNotFoundError, CheckpointError: if the named model cannot be loaded.
            RequestError: if the options name organs that the named model does not have.
        """
        self.options = options or SegmentOptions()
        self._store = store if store is not None else Store()
        self._device = device
        self._named = model
        self._key: object = None
        self._segmenter: Segmenter | None = None
        self._hashes: dict[Path, str] = {}
        choose_device(device)
        if model is not None:
            self._load(model)

    def segmenter_for(self, volume: Volume) -> tuple[Segmenter, str]:
        """The segmenter for a scan, and the sentence on why its model was chosen (empty if it was named).

        Raises:
            RequestError: if no model was named and none or several fit.
            CheckpointError: if the chosen model cannot be loaded.
        """
        if self._named is not None:
            return self._load(self._named), ""
        choice = choose_model(volume, self.available(), self.options.organs)
        return self._load(choice.model_id), choice.sentence

    def available(self) -> Sequence[Manifest]:
        """Manifests of the models that could be used now, with all that they need."""
        return [
            entry.manifest
            for entry in self._store.models()
            if entry.kind == MODEL and entry.manifest is not None and not self._store.requirements(entry.id)
        ]

    def hash_of(self, model_id: str) -> str:
        """SHA-256 of a model's file: of the named one, or of the one with this id; empty if there is none."""
        if self._segmenter is not None and self._segmenter.model.manifest.id == model_id:
            path = self._segmenter.model.path
        else:
            path = next((entry.path for entry in self._store.models() if entry.id == model_id), None)
        if path is None or not path.is_file():
            return ""
        if path not in self._hashes:
            self._hashes[path] = self._store.sha256(path)
        return self._hashes[path]

    def named_id(self) -> str | None:
        """Id of the model that was named, None if it is chosen for each scan."""
        return None if self._named is None else self._load(self._named).model.manifest.id

    def _load(self, reference: str | Path | LoadedModel) -> Segmenter:
        key = reference if not isinstance(reference, LoadedModel) else id(reference)
        if self._segmenter is None or self._key != key:
            self._segmenter = None  # two models at a time may not fit into memory
            model = reference if isinstance(reference, LoadedModel) else load_model(reference, store=self._store)
            selected_values(model.manifest.labels, self.options.organs)
            self._segmenter = Segmenter(model, device=self._device, options=self.options)
            self._key = key
        return self._segmenter
