"""Imports and exports of models in a worker of their own: progress in the status line, cancel by the same button."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.slicer.nodes.segment_session import SessionEvent
from HSAMSegmentLib.slicer.panels.engine import Engine, is_last
from HSAMSegmentLib.slicer.panels.widgets.status_line import StatusLine
from HSAMSegmentLib.workflows.events import Cancelled, Failed, Result, ending_of
from HSAMSegmentLib.workflows.requests import ExportModelRequest, ImportModelRequest

CLOSE_SECONDS = 1.0


class ModelTransfer:
    """At most one import or export at a time, beside the jobs of the panel, which may take hours."""

    def __init__(
        self, status: StatusLine, on_end: Callable[[], None], make_engine: Callable[[], Engine] = Engine
    ) -> None:
        """Prepare; nothing is started.

        Args:
            status: shows progress and errors.
            on_end: called at the end of each transfer, however it ends.
            make_engine: makes what runs the transfer.
        """
        self._status, self._on_end, self._make_engine = status, on_end, make_engine
        self._engine: Engine | None = None
        self._button = None
        self._text = ""
        self._on_result: Callable[[dict[str, Any]], None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a transfer runs."""
        return self._engine is not None

    def is_cancelled_by(self, button) -> bool:
        """Whether a button began the running transfer, so that a click on it cancels."""
        return self.is_busy and button is self._button

    def start(
        self, request: ImportModelRequest | ExportModelRequest, button, on_result: Callable[[dict[str, Any]], None]
    ) -> None:
        """Begin; the button reads "Cancel" until the end.

        Args:
            request: what to do.
            button: the button that was clicked for it.
            on_result: gets the values of the result.
        """
        engine = self._make_engine()
        try:
            engine.start_request(request, self._on_event)
        except (HSAMSegmentError, OSError) as error:
            engine.close()
            self._status.fail(ending_of(error))
            return
        self._engine, self._on_result = engine, on_result
        self._button, self._text = button, button.text
        button.text = _("Cancel")

    def cancel(self) -> None:
        """Ask the transfer to stop."""
        if self._engine is not None:
            self._engine.cancel()
            self._button.enabled = False

    def close(self) -> None:
        """The panel goes away: a running transfer is cancelled, so that it removes its temporary file."""
        if self._engine is None:
            return
        self._engine.cancel()
        deadline = time.monotonic() + CLOSE_SECONDS
        while self._engine is not None and time.monotonic() < deadline:
            slicer.app.processEvents()
            time.sleep(0.01)
        self._end()

    def _on_event(self, event: SessionEvent) -> None:
        if isinstance(event, Progress):
            self._status.show_progress(event)
        if not is_last(event):
            return
        on_result = self._on_result
        self._end()
        if isinstance(event, Result):
            on_result(event.values)
        elif isinstance(event, Failed):
            self._status.fail(event)
        elif isinstance(event, Cancelled):
            self._status.say(_("Cancelled. The list of models is as it was."))
        self._on_end()

    def _end(self) -> None:
        if self._engine is None:
            return
        self._engine.close()
        self._engine = None
        self._button.text, self._button.enabled = self._text, True
