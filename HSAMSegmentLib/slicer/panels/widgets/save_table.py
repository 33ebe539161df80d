"""Where a table goes: asked for, and never over a file without a yes."""

from __future__ import annotations

from pathlib import Path

from slicer.i18n import tr as _

from HSAMSegmentLib.slicer.panels.widgets.dialogs import Dialogs


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
