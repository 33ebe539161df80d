"""The table of a batch on screen: what became of each scan, and the volumes of its organs."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import qt
from slicer.i18n import tr as _

from HSAMSegmentLib.slicer.nodes.tables import organ_names
from HSAMSegmentLib.slicer.panels.widgets.tables import (
    ROW_PIXELS,
    prepare_table,
    put_text,
    set_rows,
    show_height,
)
from HSAMSegmentLib.slicer.panels.widgets.theme import problem_color, quiet_color, tip_of
from HSAMSegmentLib.workflows.segment_folder.folder_request import CANCELLED, DONE, FAILED, SKIPPED, WAITING, BatchRow

_MOST_ROWS = 12
_FIRST_ORGAN = 2
_HEAD_LETTERS = 8
_MOST_NAME_PIXELS = 180


class BatchTable:
    """One row per scan. A click tells its message and shows the scan."""

    def __init__(self, table, on_row: Callable[[int, BatchRow], None]) -> None:
        self._table = table
        self._on_row = on_row
        self._rows: tuple[BatchRow, ...] = ()
        self._organs: tuple[str, ...] | None = None
        self._timer = qt.QTimer(table)  # belongs to the table, whose last signals come when the application ends
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._fit)
        table.horizontalScrollBar().connect("rangeChanged(int,int)", lambda *_bounds: self._timer.start())
        table.horizontalHeader().connect("geometriesChanged()", lambda: self._timer.start())
        table.connect("cellClicked(int,int)", self._on_click)

    def show(self, rows: Sequence[BatchRow]) -> None:
        """Show the state of all scans."""
        if len(rows) != len(self._rows) or organ_names(rows) != self._organs:
            self._organs = organ_names(rows)
            heads = [_("Scan"), _("State"), *(_head(name) for name in self._organs)]
            self._table.clearSpans()
            prepare_table(self._table, heads, stretched=0 if self._organs else 1)
            self._table.setTextElideMode(qt.Qt.ElideMiddle)
            set_rows(self._table, len(rows), most=_MOST_ROWS)
            self._rows = ()
        for number, row in enumerate(rows):
            if number >= len(self._rows) or self._rows[number] != row:
                self._fill(number, row)
        self._rows = tuple(rows)
        self._fit()

    def _fit(self) -> None:
        """Let names take the room that the numbers leave, but never less than they need: then the table scrolls."""
        table, header = self._table, self._table.horizontalHeader()
        columns = range(_FIRST_ORGAN + len(self._organs or ()))
        needed = [max(table.sizeHintForColumn(column), header.sectionSizeHint(column)) for column in columns]
        least = min(needed[0], _MOST_NAME_PIXELS)
        fits = table.viewport().width - sum(needed[1:]) >= least
        takes_the_rest = fits and bool(self._organs)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch if takes_the_rest else qt.QHeaderView.Interactive)
        if not takes_the_rest:
            header.resizeSection(0, least)
        rows = ROW_PIXELS * min(max(len(self._rows), 1), _MOST_ROWS)
        show_height(table, rows + (0 if fits else table.horizontalScrollBar().sizeHint().height()))

    def _fill(self, number: int, row: BatchRow) -> None:
        color = _state_color(row.state)
        put_text(self._table, number, 0, row.name, tip=tip_of((row.name, row.message)))
        self._show_state(number, row, color)
        volumes = dict(row.volumes_ml)
        for position, organ in enumerate(self._organs or ()):
            volume = volumes.get(organ)
            text = "" if volume is None else f"{volume:.1f}" if volume > 0 else _("not found")
            item = put_text(self._table, number, _FIRST_ORGAN + position, text, color="" if volume else quiet_color())
            item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)

    def _show_state(self, number: int, row: BatchRow, color: str) -> None:
        """What became of it; why there are no volumes stands in their place, as much of it as there is room for."""
        has_reason = bool(row.message) and row.state in (FAILED, SKIPPED)
        text = f"{_state(row)}: {row.message}" if has_reason else _state(row)
        item = put_text(self._table, number, 1, text, color=color, tip=row.message)
        if has_reason:
            item.setSizeHint(qt.QSize(1, ROW_PIXELS))  # it must not make the column wide
        span = 1 + len(self._organs or ()) if has_reason else 1
        if span != self._table.columnSpan(number, 1):
            self._table.setSpan(number, 1, 1, span)

    def _on_click(self, row: int, column: int) -> None:
        if row < len(self._rows):
            self._on_row(row, self._rows[row])


def _head(organ: str) -> str:
    """Name and unit, on narrow lines: the columns are to be no wider than their numbers."""
    return "\n".join((*textwrap.wrap(organ, _HEAD_LETTERS, break_long_words=False), "mL"))


def _state_color(state: str) -> str:
    if state == FAILED:
        return problem_color()
    return quiet_color() if state in (SKIPPED, CANCELLED, WAITING) else ""


def _state(row: BatchRow) -> str:
    words = {
        DONE: _("done, see note") if row.message else _("done"),
        FAILED: _("failed"),
        SKIPPED: _("skipped"),
        CANCELLED: _("not done"),
        WAITING: _("waiting"),
    }
    return words[row.state]
