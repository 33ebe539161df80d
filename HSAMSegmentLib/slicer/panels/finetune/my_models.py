"""The user's own models: their cards, export to one file, import of one, deletion after a question.

Files are hashed and copied by a worker, since a large one takes longer than the application may stand still.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.report.model_card import card_text
from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.runtime.serialization import from_plain
from HSAMSegmentLib.slicer.nodes.segment_session import SessionEvent
from HSAMSegmentLib.slicer.panels.engine import Engine, is_last
from HSAMSegmentLib.slicer.panels.tabs import TabContext
from HSAMSegmentLib.slicer.panels.widgets.combo_entries import fill_combo, select_data
from HSAMSegmentLib.slicer.panels.widgets.long_words import show_text
from HSAMSegmentLib.slicer.panels.widgets.status_line import StatusLine
from HSAMSegmentLib.weights.catalog import MODEL
from HSAMSegmentLib.weights.store_entries import STORED, ModelEntry
from HSAMSegmentLib.workflows.events import Cancelled, Failed, Result, ending_of
from HSAMSegmentLib.workflows.requests import ExportedModel, ExportModelRequest, ImportedModel, ImportModelRequest

FILES = "Model (*.safetensors)"
CLOSE_SECONDS = 1.0


class ModelTransfer:
    """Imports and exports models in a worker of its own, one at a time, since the jobs of the panel may take hours."""

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


class MyModels:
    """Lists what is in the store; what comes with the program is not among it."""

    def __init__(self, ui, context: TabContext, status: StatusLine, on_change: Callable[[], None]) -> None:
        """Take over the widgets; `on_change` is called when a model came or went."""
        self._ui, self._status, self._on_change = ui, status, on_change
        self._models, self._dialogs, self._dependencies = context.models, context.dialogs, context.dependencies
        self._transfer = ModelTransfer(status, self._refresh_buttons)
        self._entries: list[ModelEntry] = []
        ui.myModelCombo.connect("currentIndexChanged(int)", self._on_select)
        ui.exportButton.connect("clicked()", self._export)
        ui.importButton.connect("clicked()", self._import)
        ui.deleteButton.connect("clicked()", self._delete)

    def show(self, selected: str = "") -> None:
        """List the models, newest first, and select one."""
        selected = selected or self._selected_id()
        stored = [
            entry for entry in self._models.store.models(MODEL) if entry.status == STORED and entry.path is not None
        ]
        self._entries = sorted(stored, key=lambda entry: -entry.path.stat().st_mtime)
        was_blocked = self._ui.myModelCombo.blockSignals(True)
        fill_combo(self._ui.myModelCombo, [(entry.title, entry.id) for entry in self._entries])
        select_data(self._ui.myModelCombo, selected)
        self._ui.myModelCombo.blockSignals(was_blocked)
        self._on_select()

    @property
    def is_busy(self) -> bool:
        """Whether a model is being imported or exported."""
        return self._transfer.is_busy

    def close(self) -> None:
        """The panel goes away."""
        self._transfer.close()

    @property
    def selected(self) -> ModelEntry | None:
        """The model that is shown."""
        index = self._ui.myModelCombo.currentIndex
        return self._entries[index] if 0 <= index < len(self._entries) else None

    def _selected_id(self) -> str:
        return self.selected.id if self.selected is not None else ""

    def _on_select(self, *_index) -> None:
        entry = self.selected
        self._refresh_buttons()
        if entry is None:
            text = _("There are none yet: fine-tune one, or import one from a file.")
        else:
            text = card_text(entry.manifest) if entry.manifest is not None else entry.title
        show_text(self._ui.cardLabel, text)

    def _refresh_buttons(self) -> None:
        """While a model is on its way, only the button that began it works: it cancels."""
        ui, busy, chosen = self._ui, self.is_busy, self.selected is not None
        ui.myModelCombo.visible = chosen
        for button, usable in ((ui.exportButton, chosen), (ui.deleteButton, chosen), (ui.importButton, True)):
            button.enabled = self._transfer.is_cancelled_by(button) if busy else usable

    def _export(self) -> None:
        if self.is_busy:
            self._transfer.cancel()
            return
        entry = self.selected
        path = self._dialogs.save_path(_("Export the model"), f"{entry.id}.safetensors", FILES)
        if not path:
            return
        if not entry.is_bundle and not self._try(self._has_packages):
            return
        self._start(self._models.export_request(entry.id, path), self._ui.exportButton, self._on_exported)

    def _has_packages(self) -> bool:
        """Make sure of torch, which turns an official file into a bundle."""
        self._dependencies.ensure()
        return True

    def _start(self, request, button, on_result: Callable[[dict[str, Any]], None]) -> None:
        self._transfer.start(request, button, on_result)
        self._refresh_buttons()

    def _on_exported(self, values: dict[str, Any]) -> None:
        self._status.say(_exported(from_plain(ExportedModel, values)))

    def _import(self) -> None:
        if self.is_busy:
            self._transfer.cancel()
            return
        path = self._dialogs.open_path(_("Import a model"), "Weights (*.safetensors *.pth *.pt)")
        if path:
            self._start(self._models.import_request(path), self._ui.importButton, self._on_imported)

    def _on_imported(self, values: dict[str, Any]) -> None:
        imported = from_plain(ImportedModel, values)
        self.show(imported.id)
        self._on_change()
        sentence = _("'{title}' was imported; it is in the list of models now.").format(title=imported.title)
        self._status.say(" ".join((sentence, *imported.missing)))

    def _delete(self) -> None:
        entry = self.selected
        question = _("Delete '{title}' from this computer? This cannot be undone. Export it first to keep a copy.")
        if not self._dialogs.confirm(_("Delete the model"), question.format(title=entry.title)):
            return
        if self._try(lambda: self._remove(entry)):
            self._status.say(_("'{title}' was deleted.").format(title=entry.title))
        self.show()
        self._on_change()

    def _remove(self, entry: ModelEntry) -> bool:
        self._models.store.remove(entry.id)
        return True

    def _try(self, action: Callable[[], bool]) -> bool:
        """Do something, or say why not; returns whether it was done."""
        try:
            return action()
        except (HSAMSegmentError, OSError) as error:
            self._status.fail(ending_of(error))
            return False


def _exported(done: ExportedModel) -> str:
    if done.encoder:
        return _("The model was written to {path}. Another computer also needs the encoder '{encoder}'.").format(
            path=done.path, encoder=done.encoder
        )
    return _("The model was written to {path}: this one file is all that another computer needs.").format(
        path=done.path
    )
