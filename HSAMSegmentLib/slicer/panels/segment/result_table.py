"""The table of what was found: volumes, confidence, and the way to each organ."""

from __future__ import annotations

from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from HSAMSegmentLib.slicer.panels.widgets.swatches import swatch
from HSAMSegmentLib.slicer.panels.widgets.tables import prepare_table
from HSAMSegmentLib.workflows.segment.outcome import OrganOutcome, SegmentOutcome

ORGAN, VOLUME, CONFIDENCE, UNCERTAIN = range(4)
_ROW_PIXELS = 24
_MOST_ROWS = 10
_LINK_COLOR = "#2a6fb5"
GoTo = Callable[["tuple[int, int, int]"], None]


class ResultTable:
    """One row per organ. A click goes to the organ; in the last column, to its least certain slice."""

    def __init__(self, table, go_to: GoTo) -> None:
        self._table = table
        self._go_to = go_to
        self._organs: list[OrganOutcome] = []
        prepare_table(table, [_("Organ"), _("Volume"), _("Confidence"), _("Least certain")], stretched=ORGAN)
        table.connect("cellClicked(int,int)", self._on_click)

    def show(self, outcome: SegmentOutcome) -> None:
        """List the organs of an outcome, those that were found first."""
        self._organs = sorted(outcome.organs, key=lambda organ: not organ.found)
        self._table.setRowCount(len(self._organs))
        self._table.setFixedHeight(_ROW_PIXELS * (min(len(self._organs), _MOST_ROWS) + 1))
        for row, organ in enumerate(self._organs):
            for column, text in enumerate(_texts(organ)):
                self._table.setItem(row, column, _item(text, column, found=organ.found))
            self._table.item(row, ORGAN).setIcon(swatch(organ.label.color))

    def _on_click(self, row: int, column: int) -> None:
        organ = self._organs[row]
        target = organ.uncertain_ijk if column == UNCERTAIN else organ.center_ijk
        if target is not None:
            self._go_to(target)


def _texts(organ: OrganOutcome) -> tuple[str, str, str, str]:
    if not organ.found:
        return (organ.label.name, _("not found"), "", "")
    confidence = "" if organ.confidence is None else f"{100 * organ.confidence:.0f} %"
    return (organ.label.name, f"{organ.volume_ml:.1f} mL", confidence, _("go to slice"))


def _item(text: str, column: int, *, found: bool):
    item = qt.QTableWidgetItem(text)
    if not found:
        item.setForeground(qt.QBrush(qt.QColor("gray")))
    elif column == UNCERTAIN:
        item.setForeground(qt.QBrush(qt.QColor(_LINK_COLOR)))
    return item
