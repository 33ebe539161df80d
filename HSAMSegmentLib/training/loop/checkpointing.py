"""Training states on disk: written atomically and at a steady pace, so that a kill loses seconds, never a model."""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from HSAMSegmentLib.errors import CheckpointError, OutputError
from HSAMSegmentLib.runtime.atomic_files import atomic_output

logger = logging.getLogger(__name__)

STATE_SUFFIX = ".training"


def state_path(output: Path) -> Path:
    """Where the training state of a model lies while it is trained: beside it, with another suffix."""
    return output.with_name(output.name + STATE_SUFFIX)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state; an older one is replaced only when the new one is complete.

    Args:
        path: where to.
        state: nested dicts, lists, numbers, strings and tensors.

    Raises:
        OutputError: if it cannot be written (permission, full disk); the older state is kept.
    """
    with atomic_output(path, overwrite=True) as stream:
        torch.save(state, stream)


def load_state(path: Path) -> dict[str, Any]:
    """Read a training state; nothing in the file is executed.

    Raises:
        CheckpointError: if it is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"The training state {path.name} cannot be read ({type(error).__name__}). Delete it and start again."
        ) from error


class PeriodicSaver:
    """Calls a function that saves, every so many seconds; a full disk is told once and does not end the training."""

    def __init__(
        self,
        save: Callable[[], None],
        *,
        every_seconds: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._save = save
        self._every = every_seconds
        self._clock = clock
        self._last = clock()
        self.complaint = ""

    def tick(self) -> bool:
        """Save if it is time; returns whether it was saved."""
        if self._clock() - self._last < self._every:
            return False
        return self.now()

    def now(self) -> bool:
        """Save at once; returns whether it could be done, otherwise `complaint` says why not."""
        try:
            self._save()
        except OutputError as error:
            if not self.complaint:
                logger.warning("The training state could not be saved: %s", error)
            self.complaint = str(error)
            return False
        finally:
            self._last = self._clock()
        return True
