"""Questions to the user, behind a protocol so that tests answer them; where a table is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import qt
import slicer
from slicer.i18n import tr as _


class Dialogs(Protocol):
    """What a panel may ask."""

    def confirm(self, title: str, text: str) -> bool:
        """Whether the user agrees."""

    def save_path(self, title: str, suggestion: str, kinds: str) -> str:
        """A path to write to, empty if the user changed their mind."""

    def open_path(self, title: str, kinds: str) -> str:
        """A file to read, empty if the user changed their mind."""

    def folder_path(self, title: str, start: str) -> str:
        """A folder, empty if the user changed their mind."""

    def copy(self, text: str) -> None:
        """Put text on the clipboard."""


class SlicerDialogs:
    """The application's own dialogs."""

    def confirm(self, title: str, text: str) -> bool:
        """Ask with OK and Cancel."""
        return bool(slicer.util.confirmOkCancelDisplay(text, windowTitle=title))

    def save_path(self, title: str, suggestion: str, kinds: str) -> str:
        """Ask for a file name."""
        return _path(qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, suggestion, kinds))

    def open_path(self, title: str, kinds: str) -> str:
        """Ask for an existing file."""
        return _path(qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, "", kinds))

    def folder_path(self, title: str, start: str) -> str:
        """Ask for a folder, existing or new."""
        return qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title, start)

    def copy(self, text: str) -> None:
        """Put text on the clipboard."""
        qt.QApplication.clipboard().setText(text)


def _path(answer) -> str:
    """The path alone: PythonQt returns it as it is, PySide with the chosen filter."""
    return answer[0] if isinstance(answer, tuple) else answer


def ask_csv_path(dialogs: Dialogs, suggestion: str) -> Path | None:
    """A path that ends in .csv and may be written to, or None if the user changed their mind.

    The dialog asks before it returns an existing file; a name that got its ending here was not asked about.
    """
    chosen = dialogs.save_path(_("Save table"), suggestion, "CSV (*.csv)")
    if not chosen:
        return None
    path = Path(chosen)
    if path.suffix.lower() == ".csv":
        return path
    path = path.with_name(path.name + ".csv")
    question = _("{name} exists already. Replace it?").format(name=path.name)
    return None if path.exists() and not dialogs.confirm(_("Save table"), question) else path
