"""The table of a comparison: overlap, distances and volumes per structure, and the way to the worst slice."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan, nan

import qt
from slicer.i18n import tr as _

from HSAMSegmentLib.slicer.panels.widgets.tables import Column, ColumnTable
from HSAMSegmentLib.slicer.panels.widgets.theme import link_color, quiet_color, tip_of
from HSAMSegmentLib.workflows.compare.compare_request import BOTH, NOT_COMPARED, CompareOutcome, StructureScore

NAME = 0
_MEAN = "mean"
_MOST_ROWS = 14
_RIM_PIXELS, _LEAST_PIXELS = 6, 28
_FROM_HERE_WHOLE_ML = 1000
GoTo = Callable[["tuple[float, float, float]"], None]


class ScoreTable(ColumnTable):
    """One row per structure, and one for the means. A click leads to the slice that agrees least."""

    def __init__(self, widget, go_to: GoTo) -> None:
        self._go_to = go_to
        columns = (
            (_("Dice"), lambda score: _number(score.dice, 3)),
            (_("HD95\nmm"), lambda score: _number(score.hd95_mm, 1)),
            (_("ASD\nmm"), lambda score: _number(score.asd_mm, 1)),
            (_("A\nmL"), lambda score: _volume(score.first_ml)),
            (_("B\nmL"), lambda score: "-" if score.state == NOT_COMPARED else _volume(score.second_ml)),
            (_("A - B\n%"), _difference),
        )
        super().__init__(
            widget,
            Column(_("Structure"), lambda score: score.name, _tip, _color),
            *(Column(header, text, _tip, _color, is_number=True) for header, text in columns),
            Column(_("Worst\nslice"), _worst, _tip, lambda _row: link_color(), is_number=True),
            most=_MOST_ROWS,
            wraps=True,
        )
        header = widget.horizontalHeader()
        header.setMinimumSectionSize(_LEAST_PIXELS)
        header.setSectionResizeMode(NAME, qt.QHeaderView.Interactive)
        header.connect("geometriesChanged()", self._fit)
        widget.setAlternatingRowColors(True)
        widget.connect("cellClicked(int,int)", self._on_click)

    def show(self, outcome: CompareOutcome) -> None:
        """List the structures and the means."""
        means = (outcome.mean[name] for name in ("dice", "hd95", "asd"))
        super().show((*outcome.scores, StructureScore(_("Mean"), _MEAN, *means, first_ml=nan, second_ml=nan)))
        self._stress(len(outcome.scores))

    def _fit(self) -> None:
        """Give the names what the numbers leave, on several lines if need be, but no less than their longest word."""
        table, header = self._table, self._table.horizontalHeader()
        numbers = range(NAME + 1, table.columnCount)
        room = table.viewport().width - sum(max(table.sizeHintForColumn(c), header.sectionSizeHint(c)) for c in numbers)
        width = max(room, self._longest_word_pixels() + _RIM_PIXELS)
        if header.sectionSize(NAME) != width:
            header.resizeSection(NAME, width)
        self._fit_height(has_bar=width > room)

    def _longest_word_pixels(self) -> int:
        words = [word for score in self.rows for word in score.name.split()]
        return max((self._table.fontMetrics().horizontalAdvance(word) for word in words), default=0)

    def _on_click(self, row: int, _column: int) -> None:
        if self.rows[row].worst_ras is not None:
            self._go_to(self.rows[row].worst_ras)


def _worst(score: StructureScore) -> str:
    return "" if score.worst_ras is None else f"{score.worst_dice:.2f}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _volume(milliliters: float) -> str:
    if isnan(milliliters):
        return ""
    return f"{milliliters:.0f}" if milliliters >= _FROM_HERE_WHOLE_ML else f"{milliliters:.1f}"


def _difference(score: StructureScore) -> str:
    percent = score.difference_percent
    if percent is None or score.difference_ml is None:
        return ""
    text = f"{percent:+.0f}"
    return "0" if text in ("+0", "-0") else text


def _color(score: StructureScore) -> str:
    return "" if score.state in (BOTH, _MEAN) else quiet_color()


def _tip(score: StructureScore) -> str:
    return "" if score.state == _MEAN else tip_of((score.name, _TOOLTIPS[score.state]))


_TOOLTIPS = {
    BOTH: _("Click to go to the slice that agrees least."),
    "only in A": _("B has no voxel of it: Dice 0, no distances."),
    "only in B": _("A has no voxel of it: Dice 0, no distances."),
    "absent": _("Neither A nor B has a voxel of it: in no mean."),
    "not compared": _("B has no such structure: not compared, in no mean."),
}
