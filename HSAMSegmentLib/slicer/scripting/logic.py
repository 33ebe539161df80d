"""All that `HSAMSegmentLogic` offers to scripts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from HSAMSegmentLib.slicer.scripting.engines import Engines
from HSAMSegmentLib.slicer.scripting.finetuning import Finetuning
from HSAMSegmentLib.slicer.scripting.results import Results
from HSAMSegmentLib.slicer.scripting.segmenting import Segmenting

if TYPE_CHECKING:
    from HSAMSegmentLib.slicer.nodes.segment_session import SessionEvent
    from HSAMSegmentLib.weights.store_entries import ModelEntry
    from HSAMSegmentLib.workflows.requests import ImportedModel


OnEvent = Callable[["SessionEvent"], None]


class Models(Engines):
    """List, download, import, export and remove models."""

    def models(self) -> list[ModelEntry]:
        """All models and encoders that are here or can be fetched, with `id`, `title`, `organs` and `is_present`."""
        return self.store.models()

    def downloadModelAndWait(self, modelId: str, onEvent: OnEvent | None = None) -> tuple[str, ...]:
        """Download a model of the catalog and the encoder that it stands on; files that are here are not fetched again.

        Args:
            modelId: catalog id.
            onEvent: told the `Progress` of each file.

        Returns:
            Ids of the files that were fetched.

        Raises:
            HSAMSegmentError: with a sentence; CancelledError after a cancel, when the part that came is kept.
        """
        from HSAMSegmentLib.slicer.panels.widgets.model_list import StoreModels

        missing = [entry.id for entry in self.store.requirements(modelId) if not entry.is_present]
        for identifier in missing:
            self.engine.run_request(StoreModels(self.store).download_request(identifier), onEvent)
        return tuple(missing)

    def importModelAndWait(self, path: str, onEvent: OnEvent | None = None) -> ImportedModel:
        """Take a file of weights into the store: one of ours, or one of the authors of H-SAM, SAMed or AutoSAM.

        Returns:
            An `ImportedModel`: `id`, `title`, and in `missing` sentences on what it still needs.

        Raises:
            HSAMSegmentError: with a sentence.
        """
        from HSAMSegmentLib.runtime.serialization import from_plain
        from HSAMSegmentLib.slicer.panels.widgets.model_list import StoreModels
        from HSAMSegmentLib.workflows.requests import ImportedModel

        values = self.engine.run_request(StoreModels(self.store).import_request(str(path)), onEvent)
        return from_plain(ImportedModel, values)

    def exportModelAndWait(self, modelId: str, path: str, onEvent: OnEvent | None = None) -> str:
        """Write a model to one file, for somebody else; a file that is there is replaced.

        Returns:
            The path.

        Raises:
            HSAMSegmentError: with a sentence.
        """
        from HSAMSegmentLib.slicer.panels.widgets.model_list import StoreModels

        self.engine.run_request(StoreModels(self.store).export_request(modelId, str(path)), onEvent)
        return str(path)

    def removeModel(self, modelId: str) -> None:
        """Delete a model's file from this computer; built-in models stay.

        Raises:
            HSAMSegmentError: with a sentence, if it cannot be deleted.
        """
        self.store.remove(modelId)


class ScriptingLogic(Segmenting, Finetuning, Models, Results):
    """Segment, fine-tune, manage models, and go on with results; see `Docs/scripting.md`."""
