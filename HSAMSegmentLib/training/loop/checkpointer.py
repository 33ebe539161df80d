"""Save a training at regular intervals, so that a killed process loses seconds of work. Writes are atomic."""

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
from HSAMSegmentLib.training import ranks

STATE_SUFFIX = ".training"

logger = logging.getLogger(__name__)


def state_path(output: Path) -> Path:
    """Path of a model's training state: beside the model, with another suffix."""
    return output.with_name(output.name + STATE_SUFFIX)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state atomically; an older one is replaced only by a complete one.

    Args:
        path: destination.
        state: nested dicts, lists, numbers, strings and tensors.

    Raises:
        OutputError: if it cannot be written (permissions, full disk); the older state is kept.
    """
    with atomic_output(path, overwrite=True) as stream:
        torch.save(state, stream)


def load_state(path: Path) -> dict[str, Any]:
    """Read a training state; nothing in the file is executed.

    Raises:
        CheckpointError: if it is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"The training state {path.name} cannot be read ({type(error).__name__}). Delete it and start again."
        ) from error
    return state


class Checkpointer:
    """Saves the state of a training to one file; a full disk is reported once and does not end the training."""

    def __init__(
        self,
        path: Path,
        state_of_training: Callable[[], dict[str, Any]],
        *,
        every_seconds: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            path: the file; an older state is replaced.
            state_of_training: returns what to save: nested dicts, lists, numbers, strings and tensors.
            every_seconds: interval between saves by `tick`.
            clock: returns seconds.
        """
        self.path = path
        self._state_of_training = state_of_training
        self._every = every_seconds
        self._clock = clock
        self._saved_at = clock()
        self.error = ""

    def tick(self) -> bool:
        """Save if it is time; return whether the state was saved."""
        if self._clock() - self._saved_at < self._every:
            return False
        return self.save()

    def save(self) -> bool:
        """Save now, on the first of several ranks; return whether that worked, otherwise `error` holds the reason."""
        if not ranks.is_first():
            return True
        try:
            save_state(self.path, self._state_of_training())
        except OutputError as error:
            if not self.error:
                logger.warning("The training state could not be saved: %s", error)
            self.error = str(error)
            return False
        finally:
            self._saved_at = self._clock()
        return True

    def load(self) -> dict[str, Any] | None:
        """The saved state, the same on all ranks; None if there is none.

        Raises:
            CheckpointError: if the file is damaged.
        """
        return ranks.from_first(lambda: load_state(self.path) if self.path.is_file() else None)

    def remove(self) -> None:
        """Delete the file."""
        if ranks.is_first():
            self.path.unlink(missing_ok=True)
