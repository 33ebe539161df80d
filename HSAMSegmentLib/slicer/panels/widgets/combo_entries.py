"""The entries of the panel's combo boxes."""

from __future__ import annotations

from slicer.i18n import tr as _

DEVICES = ((_("Automatic"), "auto"), (_("Processor (CPU)"), "cpu"))
"""Those that every computer has; `DeviceList` adds the others."""

QUALITIES = (
    (_("Fast (a single view of each slice)"), "fast"),
    (_("Balanced"), "balanced"),
    (_("Best (about twice as long)"), "best"),
)


def fill_combo(combo, entries) -> None:
    """Replace the entries of a combo box by (text, data) pairs."""
    combo.clear()
    for text, data in entries:
        combo.addItem(text, data)


def select_data(combo, data: str) -> None:
    """Select the entry with this data, else the first one."""
    combo.setCurrentIndex(max(0, combo.findData(data)))
