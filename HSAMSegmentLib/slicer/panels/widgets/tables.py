"""The tables of the panel: plain looks, as high as their rows, filled column by column."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import qt

from HSAMSegmentLib.slicer.panels.widgets.theme import swatch

ROW_PIXELS = 24
Text = Callable[[Any], str]


def _nothing(_row: Any) -> str:
    return ""


@dataclass(frozen=True)
class Column:
    """What the cells of a column show; each function takes what a row is about.

    Attributes:
        header: the title.
        text: of a cell.
        tip: tooltip of a cell.
        color: of the text, "" for the application's own.
        swatch: the color (red, green, blue, each 0 to 1) of a square before the text.
        is_checked: whether the check mark before the text is set; without it there is none.
        is_stretched: whether it takes the room that the others leave.
        is_number: whether its texts are on the right.
        is_editable: whether the user can change its texts.
        header_tip: tooltip of the title.
    """

    header: str
    text: Text = _nothing
    tip: Text = _nothing
    color: Text = _nothing
    swatch: Callable[[Any], tuple[float, float, float]] | None = None
    is_checked: Callable[[Any], bool] | None = None
    is_stretched: bool = False
    is_number: bool = False
    is_editable: bool = False
    header_tip: str = ""

    def item(self, row: Any):
        """Make a cell."""
        item = qt.QTableWidgetItem(self.text(row))
        tip, color = self.tip(row), self.color(row)
        if tip:
            item.setToolTip(tip)
        if color:
            item.setForeground(qt.QBrush(qt.QColor(color)))
        if self.swatch is not None:
            item.setIcon(swatch(self.swatch(row)))
        if self.is_number:
            item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        flags = qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable
        if self.is_editable:
            flags |= qt.Qt.ItemIsEditable
        if self.is_checked is not None:
            flags |= qt.Qt.ItemIsUserCheckable
            item.setCheckState(qt.Qt.Checked if self.is_checked(row) else qt.Qt.Unchecked)
        item.setFlags(flags)
        return item


class ColumnTable:
    """Fills a table widget; `rows` is what it shows."""

    def __init__(self, widget, *columns: Column, fewest: int = 1, most: int = 8, wraps: bool = False) -> None:
        """Take over a widget.

        Args:
            widget: the table widget.
            columns: from left to right.
            fewest: the table is never lower than this many rows.
            most: with more rows it scrolls.
            wraps: whether long texts take more lines.
        """
        self.rows: tuple[Any, ...] = ()
        self._table, self._fewest, self._most, self._wraps = widget, fewest, most, wraps
        self._timer = qt.QTimer(widget)  # belongs to the table, whose last signals come when the application ends
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)  # waits for the end of changes of widths
        self._timer.connect("timeout()", self._fit)
        widget.verticalHeader().setVisible(False)
        widget.verticalHeader().setDefaultSectionSize(ROW_PIXELS)
        widget.setShowGrid(False)
        widget.setWordWrap(wraps)
        widget.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        if wraps:
            widget.setTextElideMode(qt.Qt.ElideNone)
            widget.horizontalHeader().connect("sectionResized(int,int,int)", lambda *_sizes: self._timer.start())
        self._set_columns(columns)

    def show(self, rows: Iterable[Any]) -> None:
        """Show these rows instead of the former ones."""
        self.rows = tuple(rows)
        self._table.setRowCount(0)
        self._table.setRowCount(len(self.rows))
        was_blocked = self._table.blockSignals(True)  # nobody changed these cells
        for number in range(len(self.rows)):
            self._show_row(number)
        self._table.blockSignals(was_blocked)
        self._fit()
        self._timer.start()

    def _set_columns(self, columns: Sequence[Column]) -> None:
        self._columns, header = columns, self._table.horizontalHeader()
        self._table.setColumnCount(len(columns))
        self._table.setHorizontalHeaderLabels([column.header for column in columns])
        for position, column in enumerate(columns):
            mode = qt.QHeaderView.Stretch if column.is_stretched else qt.QHeaderView.ResizeToContents
            header.setSectionResizeMode(position, mode)
            if column.header_tip:
                self._table.horizontalHeaderItem(position).setToolTip(column.header_tip)
        triggers = qt.QAbstractItemView.NoEditTriggers
        if any(column.is_editable for column in columns):
            triggers = qt.QAbstractItemView.DoubleClicked | qt.QAbstractItemView.EditKeyPressed
        self._table.setEditTriggers(triggers)

    def _show_row(self, number: int) -> None:
        for position, column in enumerate(self._columns):
            self._table.setItem(number, position, column.item(self.rows[number]))

    def _stress(self, number: int, ground: str = "") -> None:
        """Show a row in bold, and on a color."""
        for position in range(len(self._columns)):
            item = self._table.item(number, position)
            font = item.font()
            font.setBold(True)
            item.setFont(font)
            if ground:
                item.setBackground(qt.QBrush(qt.QColor(ground)))

    def _fit(self) -> None:
        """Fit the table to its rows, after a change of rows or widths."""
        self._fit_height()

    def _fit_height(self, *, has_bar: bool = False) -> None:
        """Make rows as high as their texts, and the table as high as its first rows and its horizontal scroll bar."""
        table = self._table
        if self._wraps:
            table.resizeRowsToContents()
        rows = sum(table.rowHeight(row) for row in range(min(table.rowCount, self._most)))
        bar = table.horizontalScrollBar().sizeHint().height() if has_bar else 0
        head = table.horizontalHeader().sizeHint().height() + 2 * table.frameWidth
        table.setFixedHeight(max(rows, self._fewest * ROW_PIXELS) + head + bar)
