"""The one function that runs a job, wherever it runs: in this thread, in another one, or in a worker process."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.workflows.events import Event, Result
from HSAMSegmentLib.workflows.requests import Request
from HSAMSegmentLib.workflows.terminal_events import ending_of

logger = logging.getLogger(__name__)

Emit = Callable[[Event], None]

# Modules that compute import torch, so they are named here and imported when a job of their kind starts.
HANDLERS = {
    "segment": "HSAMSegmentLib.workflows.segment.volume_job:segment",
    "download": "HSAMSegmentLib.workflows.download:download",
    "verify": "HSAMSegmentLib.workflows.verify:verify",
    "probe": "HSAMSegmentLib.workflows.probe:probe",
    "teach": "HSAMSegmentLib.workflows.finetune.finetune_job:teach",
    "segment folder": "HSAMSegmentLib.workflows.segment.folder_job:segment_all",
    "compare": "HSAMSegmentLib.workflows.compare.compare_job:compare",
    "inspect": "HSAMSegmentLib.workflows.finetune.inspect_cases:inspect",
}


@dataclass
class JobContext:
    """What outlives one job: things kept warm, and functions that this layer may not know.

    Attributes:
        hooks: name to "module:function"; "surfaces" turns labels into files of closed surfaces (it needs vtk, which
            nothing below `mrml` may import).
        warm: anything a handler wants to find again at the next job, such as a loaded model.
    """

    hooks: dict[str, str] = field(default_factory=dict)
    warm: dict[Any, Any] = field(default_factory=dict)

    def hook(self, name: str) -> Callable[..., Any] | None:
        """The function behind a hook, imported now, or None if nobody named one."""
        return load_function(self.hooks[name]) if name in self.hooks else None


def load_function(reference: str) -> Callable[..., Any]:
    """Import what "module:function" names."""
    module, name = reference.split(":")
    return getattr(importlib.import_module(module), name)


def run(request: Request, emit: Emit, cancel: CancelToken, context: JobContext | None = None) -> Result:
    """Run a job to its end in this thread.

    Args:
        request: what to do.
        emit: receives progress, previews and metrics; called from this thread.
        cancel: looked at between two pieces of work.
        context: what is kept from job to job; a fresh one by default.

    Returns:
        The result; it is not emitted.

    Raises:
        HSAMSegmentError: with a sentence for the user; CancelledError after a cancel.
    """
    if request.kind not in HANDLERS:
        raise RequestError(f"Nothing can run a job of the kind '{request.kind}'.")
    return load_function(HANDLERS[request.kind])(request, emit, cancel, context or JobContext())


def run_to_end(request: Request, emit: Emit, cancel: CancelToken, context: JobContext | None = None) -> None:
    """Like `run`, but whatever happens becomes the last event: result, failed or cancelled. Raises nothing."""
    try:
        emit(run(request, emit, cancel, context))
    except Exception as error:  # noqa: BLE001 - the edge of a job: every error becomes an event that is shown
        logger.info("The %s job ended with %s: %s", request.kind, type(error).__name__, error)
        emit(ending_of(error))
