"""The context of a workflow: where its events go, how to cancel it, and what stays loaded."""

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
    """Ignore an event: the default of a context."""


def progress_only(callback: ProgressCallback | None) -> Emit:
    """Pass progress to a callback, and drop other events."""

    def emit(event: Event) -> None:
        if callback is not None and isinstance(event, Progress):
            callback(event)

    return emit


@dataclass
class Context:
    """The second argument of every `run`.

    Attributes:
        emit: called with progress, previews and metrics, from the thread that runs the workflow.
        cancel: checked between steps.
        hooks: name to "module:function"; "surfaces" turns labels into files of closed surfaces (it needs vtk, which the
            workflows do not import).
        shared: kept for later workflows with the same context, for example a loaded model.
    """

    emit: Emit = ignore_event
    cancel: CancelToken = field(default_factory=CancelToken)
    hooks: dict[str, str] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)

    def with_events(self, emit: Emit, cancel: CancelToken) -> Context:
        """A context for one more workflow with the same shared models."""
        return replace(self, emit=emit, cancel=cancel)

    @property
    def progress(self) -> ProgressCallback:
        """`emit` for functions that report progress only."""
        return self.emit

    @property
    def models(self) -> ModelCache:
        """The models that stay loaded, created on first use (imports torch)."""
        from HSAMSegmentLib.workflows.segment.model_cache import ModelCache

        found: ModelCache = self.shared.setdefault("models", ModelCache())
        return found

    def hook(self, name: str) -> Callable[..., Any] | None:
        """Import the function behind a hook; None if there is no such hook."""
        return load_function(self.hooks[name]) if name in self.hooks else None


def load_function(reference: str) -> Callable[..., Any]:
    """Import a "module:function"."""
    module, name = reference.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found
