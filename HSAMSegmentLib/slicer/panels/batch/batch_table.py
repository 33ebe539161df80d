"""The table of a batch on screen: what became of each scan, and the volumes of its organs."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from functools import partial

import qt
from slicer.i18n import tr as _

from HSAMSegmentLib.slicer.nodes.tables import organ_names
from HSAMSegmentLib.slicer.panels.widgets.tables import ROW_PIXELS, Column, ColumnTable
from HSAMSegmentLib.slicer.panels.widgets.theme import problem_color, quiet_color, tip_of
from HSAMSegmentLib.workflows.segment_folder.folder_request import CANCELLED, DONE, FAILED, SKIPPED, WAITING, BatchRow

_MOST_ROWS = 12
_HEAD_LETTERS = 8
_MOST_NAME_PIXELS = 180


class BatchTable(ColumnTable):
    """One row per scan. A click tells its message and shows the scan."""

    def __init__(self, widget, on_row: Callable[[int, BatchRow], None]) -> None:
        super().__init__(widget, *_columns(()), most=_MOST_ROWS)
        self._organs: tuple[str, ...] | None = None
        widget.setTextElideMode(qt.Qt.ElideMiddle)
        widget.horizontalScrollBar().connect("rangeChanged(int,int)", lambda *_bounds: self._timer.start())
        widget.horizontalHeader().connect("geometriesChanged()", lambda: self._timer.start())
        widget.connect("cellClicked(int,int)", lambda number, _column: on_row(number, self.rows[number]))

    def show(self, rows: Sequence[BatchRow]) -> None:
        """Show the state of all scans."""
        if len(rows) != len(self.rows) or organ_names(rows) != self._organs:
            self._organs = organ_names(rows)
            self._table.clearSpans()
            self._set_columns(_columns(self._organs))
            super().show(rows)
            return
        before, self.rows = self.rows, tuple(rows)
        for number, row in enumerate(self.rows):
            if row != before[number]:
                self._show_row(number)
        self._fit()

    def _fit(self) -> None:
        """Let names take the room that the numbers leave, but never less than they need: then the table scrolls."""
        table, header = self._table, self._table.horizontalHeader()
        columns = range(table.columnCount)
        needed = [max(table.sizeHintForColumn(column), header.sectionSizeHint(column)) for column in columns]
        least = min(needed[0], _MOST_NAME_PIXELS)
        fits = table.viewport().width - sum(needed[1:]) >= least
        takes_the_rest = fits and bool(self._organs)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch if takes_the_rest else qt.QHeaderView.Interactive)
        if not takes_the_rest:
            header.resizeSection(0, least)
        self._fit_height(has_bar=not fits)

    def _show_row(self, number: int) -> None:
        """Why there are no volumes stands in their place, as much of it as there is room for."""
        super()._show_row(number)
        span = 1
        if _has_reason(self.rows[number]):
            span = self._table.columnCount - 1
            self._table.item(number, 1).setSizeHint(qt.QSize(1, ROW_PIXELS))  # it must not make the column wide
        if span != self._table.columnSpan(number, 1):
            self._table.setSpan(number, 1, 1, span)


def _columns(organs: Sequence[str]) -> list[Column]:
    return [
        Column(_("Scan"), lambda row: row.name, _name_tip, is_stretched=bool(organs)),
        Column(_("State"), _state, lambda row: row.message, _state_color, is_stretched=not organs),
        *(Column(_head(name), partial(_volume, name), color=partial(_color, name), is_number=True) for name in organs),
    ]


def _name_tip(row: BatchRow) -> str:
    return tip_of((row.name, row.message))


def _has_reason(row: BatchRow) -> bool:
    return bool(row.message) and row.state in (FAILED, SKIPPED)


def _volume(organ: str, row: BatchRow) -> str:
    volume = dict(row.volumes_ml).get(organ)
    return "" if volume is None else f"{volume:.1f}" if volume > 0 else _("not found")


def _color(organ: str, row: BatchRow) -> str:
    return "" if dict(row.volumes_ml).get(organ) else quiet_color()


def _head(organ: str) -> str:
    """Name and unit, on narrow lines: the columns are to be no wider than their numbers."""
    return "\n".join((*textwrap.wrap(organ, _HEAD_LETTERS, break_long_words=False), "mL"))


def _state_color(row: BatchRow) -> str:
    if row.state == FAILED:
        return problem_color()
    return quiet_color() if row.state in (SKIPPED, CANCELLED, WAITING) else ""


def _state(row: BatchRow) -> str:
    words = {
        DONE: _("done, see note") if row.message else _("done"),
        FAILED: _("failed"),
        SKIPPED: _("skipped"),
        CANCELLED: _("not done"),
        WAITING: _("waiting"),
    }
    return f"{words[row.state]}: {row.message}" if _has_reason(row) else words[row.state]
