"""The service without HTTP: settings, tokens, models, the job board, and the workers that run jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from HSAMSegmentLib.errors import CancelledError, ModelNotFoundError
from HSAMSegmentLib.runtime.atomic_files import make_folder
from HSAMSegmentLib.runtime.owned_folders import Workspace
from HSAMSegmentLib.service.dispatcher import Dispatcher
from HSAMSegmentLib.service.jobs import JobBoard
from HSAMSegmentLib.service.kept_scans import KeptScans
from HSAMSegmentLib.service.settings import ServiceSettings, Tokens
from HSAMSegmentLib.weights.catalog import MODEL
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.weights.store_entries import ModelEntry


class Service:
    """Everything that requests share.

    Args:
        settings: settings of the service.
        store: where models are looked up; None for the user's own.
        environment: additional environment variables of the worker processes.

    Raises:
        OutputError: if the folder for uploads cannot be created.
    """

    def __init__(
        self, settings: ServiceSettings, store: Store | None = None, *, environment: dict[str, str] | None = None
    ) -> None:
        self.settings = settings
        self.tokens = Tokens(settings.tokens)
        self._store = store or Store()
        if settings.folder is not None:
            make_folder(settings.folder)
        self._workspace = Workspace(settings.folder)
        limits = settings.limits
        self.board = JobBoard(
            waiting_jobs=limits.waiting_jobs, kept_jobs=limits.kept_jobs, keep_seconds=limits.keep_seconds
        )
        self.images, self.sessions = (
            KeptScans(most_of_one=limits.kept_scans, keep_seconds=limits.keep_seconds) for _ in range(2)
        )
        self.dispatcher = Dispatcher(
            self.board,
            self._workspace,
            limits,
            workers=settings.workers,
            environment=environment,
            expire=(self.board.expire, self.images.expire, self.sessions.expire),
        )
        self._is_stopping = False

    @property
    def folder(self) -> Path:
        """Folder of uploads and results; only the user who runs the service can read it."""
        return self._workspace.folder

    def start(self) -> None:
        """Start running jobs."""
        self.dispatcher.start()

    def stop(self) -> None:
        """End all jobs and delete every upload and result."""
        self._is_stopping = True
        self.dispatcher.stop()
        self._workspace.close()

    def raise_if_stopping(self) -> None:
        """Stop work that a client is waiting for.

        Raises:
            CancelledError: if the service is shutting down.
        """
        if self._is_stopping:
            raise CancelledError("The service is about to end. Send the scan again later.")

    def ready_models(self) -> list[ModelEntry]:
        """The models that are ready to use."""
        entries = [entry for entry in self._store.models(MODEL) if entry.is_present]
        return [entry for entry in entries if not self._store.requirements(entry.id)]

    def models(self) -> list[dict[str, Any]]:
        """Descriptions of the models for clients."""
        return [
            {
                "id": entry.id,
                "title": entry.title,
                "modality": entry.modality,
                "organs": list(entry.organs),
                "license": entry.license.name,
                "research_only": entry.license.research_only,
            }
            for entry in self.ready_models()
        ]

    def model_for(self, name: str) -> str:
        """The model reference for the worker, from the ID that a client named.

        Clients name models by ID only: a path would let them access files on this computer.

        Raises:
            ModelNotFoundError: if no model with this ID is ready.
        """
        if not name:
            return self.settings.model
        ready = [entry.id for entry in self.ready_models()]
        if name not in ready:
            raise ModelNotFoundError(f"This service has no model '{name}'; it has {', '.join(ready) or 'none'}.")
        return name
