"""The user's own models: their cards, export to one file, import of one, deletion after a question."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from slicer.i18n import tr as _

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.slicer.panels.widgets.combo_entries import fill_combo, select_data
from HSAMSegmentLib.slicer.panels.widgets.dialogs import Dialogs
from HSAMSegmentLib.slicer.panels.widgets.status_line import StatusLine
from HSAMSegmentLib.weights.catalog import MODEL
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.weights.store_entries import STORED, ModelEntry
from HSAMSegmentLib.workflows.finetune.model_summary import card_text
from HSAMSegmentLib.workflows.terminal_events import ending_of

FILES = "Model (*.safetensors)"


class MyModels:
    """Lists what is in the store; what comes with the program is not among it."""

    def __init__(self, ui, store: Store, dialogs: Dialogs, status: StatusLine, on_change: Callable[[], None]) -> None:
        """Take over the widgets; `on_change` is called when a model came or went."""
        self._ui, self._store, self._dialogs, self._status = ui, store, dialogs, status
        self._on_change = on_change
        self._entries: list[ModelEntry] = []
        ui.myModelCombo.connect("currentIndexChanged(int)", self._on_select)
        ui.exportButton.connect("clicked()", self._export)
        ui.importButton.connect("clicked()", self._import)
        ui.deleteButton.connect("clicked()", self._delete)

    def show(self, selected: str = "") -> None:
        """List the models, newest first, and select one."""
        selected = selected or self._selected_id()
        stored = [entry for entry in self._store.models(MODEL) if entry.status == STORED and entry.path is not None]
        self._entries = sorted(stored, key=lambda entry: -entry.path.stat().st_mtime)
        was_blocked = self._ui.myModelCombo.blockSignals(True)
        fill_combo(self._ui.myModelCombo, [(entry.title, entry.id) for entry in self._entries])
        select_data(self._ui.myModelCombo, selected)
        self._ui.myModelCombo.blockSignals(was_blocked)
        self._on_select()

    @property
    def selected(self) -> ModelEntry | None:
        """The model that is shown."""
        index = self._ui.myModelCombo.currentIndex
        return self._entries[index] if 0 <= index < len(self._entries) else None

    def _selected_id(self) -> str:
        return self.selected.id if self.selected is not None else ""

    def _on_select(self, *_index) -> None:
        entry = self.selected
        for button in (self._ui.exportButton, self._ui.deleteButton):
            button.enabled = entry is not None
        if entry is None:
            text = _("There are none yet: teach one, or import one from a file.")
        else:
            text = card_text(entry.manifest) if entry.manifest is not None else entry.title
        self._ui.cardLabel.setText(text)

    def _export(self) -> None:
        entry = self.selected
        path = self._dialogs.save_path(_("Export the model"), f"{entry.id}.safetensors", FILES)
        if path:
            self._try(
                lambda: self._store.export(entry.id, Path(path), overwrite=True), lambda done: _exported(done, entry)
            )

    def _import(self) -> None:
        path = self._dialogs.open_path(_("Import a model"), "Weights (*.safetensors *.pth *.pt)")
        if not path:
            return
        taken = self._try(lambda: self._store.import_file(path), _imported)
        if taken is not None:
            self.show(taken.id)
            self._on_change()

    def _delete(self) -> None:
        entry = self.selected
        question = _("Delete '{title}' from this computer? This cannot be undone. Export it first to keep a copy.")
        if not self._dialogs.confirm(_("Delete the model"), question.format(title=entry.title)):
            return
        self._try(lambda: self._store.remove(entry.id), lambda _done: _deleted(entry))
        self.show()
        self._on_change()

    def _try(self, action: Callable, sentence: Callable):
        """Do something and say so, or say why not; returns what the action returned."""
        try:
            result = action()
        except (HSAMSegmentError, OSError) as error:
            self._status.fail(ending_of(error))
            return None
        self._status.say(sentence(result))
        return result


def _exported(path: Path, entry: ModelEntry) -> str:
    if entry.encoder:
        return _("The model was written to {path}. Another computer also needs the encoder '{encoder}'.").format(
            path=path, encoder=entry.encoder
        )
    return _("The model was written to {path}: this one file is all that another computer needs.").format(path=path)


def _imported(entry: ModelEntry) -> str:
    return _("'{title}' was imported; it is in the list of models now.").format(title=entry.title)


def _deleted(entry: ModelEntry) -> str:
    return _("'{title}' was deleted.").format(title=entry.title)
