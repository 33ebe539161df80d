"""The table of a comparison: overlap, distances and volumes per structure, and the way to the worst slice."""

from __future__ import annotations

from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from HSAMSegmentLib.slicer.panels.widgets.tables import fit_rows
from HSAMSegmentLib.slicer.panels.widgets.theme import link_color, quiet_color, tip_of
from HSAMSegmentLib.workflows.compare.compare_request import BOTH, NOT_COMPARED, CompareOutcome, StructureScore

NAME, DICE, HD95, ASD, FIRST, SECOND, DIFFERENCE, WORST = range(8)
_MOST_ROWS = 14
_RIM_PIXELS, _LEAST_PIXELS = 6, 28
_FROM_HERE_WHOLE_ML = 1000
GoTo = Callable[["tuple[float, float, float]"], None]


class ScoreTable:
    """One row per structure, and one for the means. A click leads to the slice that agrees least."""

    def __init__(self, table, go_to: GoTo) -> None:
        self._table = table
        self._go_to = go_to
        self._scores: tuple[StructureScore, ...] = ()
        scores = (_("Dice"), _("HD95\nmm"), _("ASD\nmm"))
        heads = (_("Structure"), *scores, _("A\nmL"), _("B\nmL"), _("A - B\n%"), _("Worst\nslice"))
        table.setColumnCount(len(heads))
        table.setHorizontalHeaderLabels(list(heads))
        table.verticalHeader().setVisible(False)
        header = table.horizontalHeader()
        header.setMinimumSectionSize(_LEAST_PIXELS)
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(NAME, qt.QHeaderView.Interactive)
        header.connect("geometriesChanged()", self._fit)
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        table.setShowGrid(False)
        table.setAlternatingRowColors(True)
        table.setTextElideMode(qt.Qt.ElideNone)
        table.connect("cellClicked(int,int)", self._on_click)

    def show(self, outcome: CompareOutcome) -> None:
        """List the structures and the means."""
        self._scores = outcome.scores
        self._table.setRowCount(len(self._scores) + 1)
        for row, score in enumerate(self._scores):
            for column, text in enumerate(_texts(score)):
                self._table.setItem(row, column, _item(text, column, score))
        means = [_("Mean"), *(_number(outcome.mean[name], digits) for name, digits in _MEANS), "", "", "", ""]
        for column, text in enumerate(means):
            item = qt.QTableWidgetItem(text)
            font = item.font()
            font.setBold(True)
            item.setFont(font)
            _align(item, column)
            self._table.setItem(len(self._scores), column, item)
        self._fit()

    def _fit(self) -> None:
        """Give the names what the numbers leave, on several lines if need be, but no less than their longest word."""
        table, header = self._table, self._table.horizontalHeader()
        numbers = sum(max(table.sizeHintForColumn(c), header.sectionSizeHint(c)) for c in range(DICE, WORST + 1))
        room = table.viewport().width - numbers
        width = max(room, self._longest_word_pixels() + _RIM_PIXELS)
        if header.sectionSize(NAME) != width:
            header.resizeSection(NAME, width)
        fit_rows(table, most=_MOST_ROWS)
        if width > room:
            table.setFixedHeight(table.height + table.horizontalScrollBar().sizeHint().height())

    def _longest_word_pixels(self) -> int:
        words = [word for score in self._scores for word in score.name.split()]
        return max((self._table.fontMetrics().horizontalAdvance(word) for word in words), default=0)

    def _on_click(self, row: int, column: int) -> None:
        if row < len(self._scores) and self._scores[row].worst_ras is not None:
            self._go_to(self._scores[row].worst_ras)


_MEANS = (("dice", 3), ("hd95", 1), ("asd", 1))


def _texts(score: StructureScore) -> tuple[str, ...]:
    percent = score.difference_percent
    return (
        score.name,
        _number(score.dice, 3),
        _number(score.hd95_mm, 1),
        _number(score.asd_mm, 1),
        _volume(score.first_ml),
        "-" if score.state == NOT_COMPARED else _volume(score.second_ml),
        "" if percent is None or score.difference_ml is None else _signed(percent),
        "" if score.worst_ras is None else f"{score.worst_dice:.2f}",
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _volume(milliliters: float) -> str:
    return f"{milliliters:.0f}" if milliliters >= _FROM_HERE_WHOLE_ML else f"{milliliters:.1f}"


def _signed(percent: float) -> str:
    text = f"{percent:+.0f}"
    return "0" if text in ("+0", "-0") else text


def _item(text: str, column: int, score: StructureScore):
    item = qt.QTableWidgetItem(text)
    tip = _TOOLTIPS.get(score.state, "") or _("Click to go to the slice that agrees least.")
    item.setToolTip(tip_of((score.name, tip)))
    if score.state != BOTH:
        item.setForeground(qt.QBrush(qt.QColor(quiet_color())))
    if column == WORST and text:
        item.setForeground(qt.QBrush(qt.QColor(link_color())))
    _align(item, column)
    return item


_TOOLTIPS = {
    "only in A": _("B has no voxel of it: Dice 0, no distances."),
    "only in B": _("A has no voxel of it: Dice 0, no distances."),
    "absent": _("Neither A nor B has a voxel of it: in no mean."),
    "not compared": _("B has no such structure: not compared, in no mean."),
}


def _align(item, column: int) -> None:
    if column != NAME:
        item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
