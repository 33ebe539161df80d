"""The workers behind a logic: one for what is soon over, one for fine-tuning, which may take hours."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from HSAMSegmentLib.slicer.panels.engine import Engine
    from HSAMSegmentLib.weights.store import Store


class Engines:
    """Makes the workers when they are needed first, and ends them."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._finetuning_engine: Engine | None = None
        self._store: Store | None = None

    @property
    def engine(self) -> Engine:
        """Runs everything but fine-tuning."""
        if self._engine is None:
            from HSAMSegmentLib.slicer.panels.engine import Engine

            self._engine = Engine()
        return self._engine

    @property
    def finetuningEngine(self) -> Engine:
        """Runs fine-tuning, so that segmenting stays possible meanwhile."""
        if self._finetuning_engine is None:
            from HSAMSegmentLib.slicer.panels.engine import Engine

            self._finetuning_engine = Engine()
        return self._finetuning_engine

    @property
    def store(self) -> Store:
        """Where models are looked up and put; the user's own unless another one is set."""
        if self._store is None:
            from HSAMSegmentLib.weights.store import Store

            self._store = Store()
        return self._store

    @store.setter
    def store(self, store: Store) -> None:
        self._store = store

    def isBusy(self) -> bool:
        """Whether a job other than fine-tuning is running."""
        return self._engine is not None and self._engine.is_busy

    def isFineTuning(self) -> bool:
        """Whether a fine-tuning is running."""
        return self._finetuning_engine is not None and self._finetuning_engine.is_busy

    def cancel(self) -> None:
        """Ask the running job to stop; its last event comes within a second. A fine-tuning goes on."""
        self.engine.cancel()

    def close(self) -> None:
        """End all jobs and their worker processes. A fine-tuning can go on later, see `unfinishedFineTunings`."""
        for engine in (self._engine, self._finetuning_engine):
            if engine is not None:
                engine.close()
        self._engine = self._finetuning_engine = None
