"""Small tables in a panel: plain looks, as high as their rows, with color swatches."""

from __future__ import annotations

from collections.abc import Sequence

import qt

ROW_PIXELS = 24


def prepare_table(table, headers: Sequence[str], *, stretched: int = 0) -> None:
    """Columns with headers, whole rows selected, nothing edited; one column takes what room is left."""
    table.setColumnCount(len(headers))
    table.setHorizontalHeaderLabels(list(headers))
    table.verticalHeader().setVisible(False)
    for column in range(len(headers)):
        mode = qt.QHeaderView.Stretch if column == stretched else qt.QHeaderView.ResizeToContents
        table.horizontalHeader().setSectionResizeMode(column, mode)
    table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
    table.verticalHeader().setDefaultSectionSize(ROW_PIXELS)
    table.setShowGrid(False)
    table.setWordWrap(False)
    table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)


def wrap_names(table, *, fewest: int = 1, most: int = 8):
    """Let long texts take more lines, and keep the table as high as its rows, within bounds.

    Returns:
        A timer that has to be kept and started after the table was filled: it waits for the end of changes of widths.
    """
    table.setWordWrap(True)
    table.setTextElideMode(qt.Qt.ElideNone)
    timer = qt.QTimer()
    timer.setSingleShot(True)
    timer.setInterval(0)
    timer.connect("timeout()", lambda: fit_rows(table, fewest=fewest, most=most))
    table.horizontalHeader().connect("sectionResized(int,int,int)", lambda *_sizes: timer.start())
    return timer


def fit_rows(table, *, fewest: int = 1, most: int = 8) -> None:
    """Make rows as high as their texts, and the table as high as its first rows."""
    table.resizeRowsToContents()
    show_height(table, max(sum(table.rowHeight(row) for row in range(min(table.rowCount, most))), fewest * ROW_PIXELS))


def show_height(table, pixels: int) -> None:
    """Make the table so high that this many pixels of rows are seen below its head."""
    table.setFixedHeight(pixels + table.horizontalHeader().sizeHint().height() + 2 * table.frameWidth)


def set_rows(table, count: int, *, fewest: int = 1, most: int = 8) -> None:
    """Give the table this many empty rows, and make it as high as they are, within bounds."""
    table.setRowCount(0)
    table.setRowCount(count)
    show_height(table, ROW_PIXELS * min(max(count, fewest), most))


def put_text(table, row: int, column: int, text: str, *, color: str = "", tip: str = ""):
    """Write a cell; returns its item."""
    item = qt.QTableWidgetItem(text)
    if color:
        item.setForeground(qt.QBrush(qt.QColor(color)))
    if tip:
        item.setToolTip(tip)
    table.setItem(row, column, item)
    return item
