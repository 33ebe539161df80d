"""Training states on disk, written atomically."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.runtime.atomic_files import atomic_output

STATE_SUFFIX = ".training"


def state_path(output: Path) -> Path:
    """Path of the training state of a model: beside the model, with another suffix."""
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
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"The training state {path.name} cannot be read ({type(error).__name__}). Delete it and start again."
        ) from error
    return state
