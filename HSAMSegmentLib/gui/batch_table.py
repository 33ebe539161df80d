"""The table of a batch on screen: what became of each scan, and the volumes of its organs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import qt
from slicer.i18n import tr as _

from HSAMSegmentLib.gui.tables import PROBLEM_COLOR, QUIET_COLOR, prepare_table, put_text, set_rows
from HSAMSegmentLib.jobs.folder_request import CANCELLED, DONE, FAILED, SKIPPED, WAITING, BatchRow
from HSAMSegmentLib.mrml.batch_summary import organ_names

_MOST_ROWS = 12
_FIRST_ORGAN = 2


class BatchTable:
    """One row per scan. A click tells its message and shows the scan."""

    def __init__(self, table, on_row: Callable[[int, BatchRow], None]) -> None:
        self._table = table
        self._on_row = on_row
        self._rows: tuple[BatchRow, ...] = ()
        self._organs: tuple[str, ...] | None = None
        table.connect("cellClicked(int,int)", self._on_click)

    def show(self, rows: Sequence[BatchRow]) -> None:
        """Show the state of all scans."""
        if len(rows) != len(self._rows) or organ_names(rows) != self._organs:
            self._organs = organ_names(rows)
            heads = [_("Scan"), _("State"), *(f"{name}\nmL" for name in self._organs)]
            prepare_table(self._table, heads)
            set_rows(self._table, len(rows), most=_MOST_ROWS)
            self._table.setFixedHeight(self._table.minimumHeight + 24)  # two lines of header, or a scroll bar
            self._rows = ()
        for number, row in enumerate(rows):
            if number >= len(self._rows) or self._rows[number] != row:
                self._fill(number, row)
        self._rows = tuple(rows)

    def _fill(self, number: int, row: BatchRow) -> None:
        color = {FAILED: PROBLEM_COLOR, SKIPPED: QUIET_COLOR, CANCELLED: QUIET_COLOR, WAITING: QUIET_COLOR}.get(
            row.state
        )
        put_text(self._table, number, 0, row.name, tip=row.message or row.output)
        put_text(self._table, number, 1, _state(row), color=color or "", tip=row.message)
        volumes = dict(row.volumes_ml)
        for position, organ in enumerate(self._organs or ()):
            volume = volumes.get(organ)
            text = "" if volume is None else f"{volume:.1f}" if volume > 0 else _("not found")
            item = put_text(self._table, number, _FIRST_ORGAN + position, text, color="" if volume else QUIET_COLOR)
            item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)

    def _on_click(self, row: int, column: int) -> None:
        if row < len(self._rows):
            self._on_row(row, self._rows[row])


def _state(row: BatchRow) -> str:
    words = {
        DONE: _("done, with notes") if row.message else _("done"),
        FAILED: _("failed"),
        SKIPPED: _("skipped"),
        CANCELLED: _("not done"),
        WAITING: _("waiting"),
    }
    return words[row.state]
