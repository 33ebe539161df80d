"""What a workflow is given besides its request: where its events go, how it is canceled, and what stays loaded."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from HSAMSegmentLib.runtime.progress import CancelToken, Progress, ProgressCallback
from HSAMSegmentLib.workflows.events import Event

if TYPE_CHECKING:
    from HSAMSegmentLib.workflows.segment.model_cache import ModelCache

Emit = Callable[[Event], None]


def ignore_event(event: Event) -> None:
    """Accept and drop an event: the default of a context."""


def progress_only(callback: ProgressCallback | None) -> Emit:
    """Events for a caller that wants progress, and nothing else."""

    def emit(event: Event) -> None:
        if callback is not None and isinstance(event, Progress):
            callback(event)

    return emit


@dataclass
class Context:
    """The surroundings of a workflow; the second argument of every `run`.

    Attributes:
        emit: receives progress, previews and metrics, called from the thread that runs the workflow.
        cancel: looked at between two pieces of work.
        hooks: name to "module:function"; "surfaces" turns labels into files of closed surfaces (it needs vtk, which
            the workflows do not import).
        shared: what a later workflow with the same surroundings finds again, such as a loaded model.
    """

    emit: Emit = ignore_event
    cancel: CancelToken = field(default_factory=CancelToken)
    hooks: dict[str, str] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)

    def with_events(self, emit: Emit, cancel: CancelToken) -> Context:
        """The same surroundings for one more workflow; loaded models are shared."""
        return replace(self, emit=emit, cancel=cancel)

    @property
    def progress(self) -> ProgressCallback:
        """`emit` for functions that report progress only."""
        return self.emit

    @property
    def models(self) -> ModelCache:
        """The models that stay loaded, made at first use (it imports torch)."""
        from HSAMSegmentLib.workflows.segment.model_cache import ModelCache

        found: ModelCache = self.shared.setdefault("models", ModelCache())
        return found

    def hook(self, name: str) -> Callable[..., Any] | None:
        """The function behind a hook, imported now; None if there is no such hook."""
        return load_function(self.hooks[name]) if name in self.hooks else None


def load_function(reference: str) -> Callable[..., Any]:
    """Import what "module:function" names."""
    module, name = reference.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found
