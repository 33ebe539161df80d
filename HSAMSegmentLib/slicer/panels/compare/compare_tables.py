"""The tables of a comparison: which structure of A is which of B, and how well they agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isnan, nan

import qt
from slicer.i18n import tr as _

from HSAMSegmentLib.evaluation.label_matching import CODE, NAME, VALUE, LabelPair, StructurePair
from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.slicer.panels.widgets.tables import Column, ColumnTable
from HSAMSegmentLib.slicer.panels.widgets.theme import link_color, quiet_color, swatch, tip_of
from HSAMSegmentLib.workflows.compare.compare_request import BOTH, NOT_COMPARED, CompareOutcome, StructureScore

_ROW_PIXELS = 26
_COMBO_LETTERS = 10
_NOTHING, _LEFT_OUT = -1, -2
_FIXED_CHOICES = 2
_STRUCTURE = 0
_MEAN = "mean"
_MOST_ROWS = 14
_RIM_PIXELS, _LEAST_PIXELS = 6, 28
_FROM_HERE_WHOLE_ML = 1000
GoTo = Callable[["tuple[float, float, float]"], None]
Row = tuple[Label, "LabelPair | None"]


class PairTable(ColumnTable):
    """One row per structure of B and its guess, each with a choice of the structures of A."""

    def __init__(self, widget, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._candidates: tuple[Label, ...] = ()
        self._combos: list = []
        super().__init__(
            widget,
            Column(_("In B"), _name, _name, swatch=lambda row: row[0].color, is_stretched=True),
            Column(_("In A")),
            Column(_("Found by"), _reason),
        )
        widget.verticalHeader().setDefaultSectionSize(_ROW_PIXELS)
        widget.setSelectionMode(qt.QAbstractItemView.NoSelection)

    def show(self, first: LabelSet, second: LabelSet, pairs: Sequence[LabelPair]) -> None:
        """Show a guess for the structures of A (first) and B (second)."""
        self._candidates, self._combos = tuple(first), []
        guesses = {pair.reference.value: pair for pair in pairs if pair.reference is not None}
        super().show((label, guesses.get(label.value)) for label in second)

    @property
    def pairs(self) -> tuple[StructurePair, ...]:
        """What is compared with what, then what only A has; what is left out is in neither."""
        taken = set()
        pairs = []
        for number, ((label, _guess), combo) in enumerate(zip(self.rows, self._combos)):
            chosen = int(combo.currentData)
            taken.add(chosen)
            if chosen != _LEFT_OUT:
                pairs.append(StructurePair(label.name, None if chosen == _NOTHING else chosen, number))
        others = [(position, label) for position, label in enumerate(self._candidates) if position not in taken]
        return (*pairs, *(StructurePair(label.name, position, None) for position, label in others))

    @property
    def paired(self) -> int:
        """How many structures have a counterpart."""
        return sum(pair.first is not None and pair.second is not None for pair in self.pairs)

    @property
    def problem(self) -> str:
        """Why this cannot be compared, as a sentence, or nothing."""
        chosen = [pair.first for pair in self.pairs if pair.first is not None and pair.second is not None]
        if not chosen:
            return _("No structure of B has a counterpart in A. Choose at least one under Structures.")
        twice = [position for position in chosen if chosen.count(position) > 1]
        if twice:
            name = self._candidates[twice[0]].name
            return _("'{name}' of A is chosen for two structures of B. Change one under Structures.").format(name=name)
        return ""

    def _show_row(self, number: int) -> None:
        super()._show_row(number)
        guess = self.rows[number][1]
        combo = qt.QComboBox()
        combo.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        combo.setMinimumContentsLength(_COMBO_LETTERS)
        combo.addItem(_("(missing: Dice 0)"), _NOTHING)
        combo.addItem(_("(leave out)"), _LEFT_OUT)
        for position, candidate in enumerate(self._candidates):
            combo.addItem(swatch(candidate.color), candidate.name, position)
        partner = guess.prediction if guess is not None else None
        combo.setCurrentIndex(0 if partner is None else _FIXED_CHOICES + partner.value - 1)
        combo.connect("currentIndexChanged(int)", lambda _index: self._on_choice(number))
        self._table.setCellWidget(number, 1, combo)
        self._combos.append(combo)

    def _on_choice(self, number: int) -> None:
        self._table.item(number, 2).setText(_("your choice"))
        self._on_change()


def _name(row: Row) -> str:
    return row[0].name


def _reason(row: Row) -> str:
    words = {NAME: _("name"), CODE: _("terminology"), VALUE: _("number: please check")}
    return words.get(row[1].by, "") if row[1] is not None else ""


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
        header.setSectionResizeMode(_STRUCTURE, qt.QHeaderView.Interactive)
        header.connect("geometriesChanged()", self._fit)
        widget.setAlternatingRowColors(True)
        widget.connect("cellClicked(int,int)", self._on_click)

    def show(self, outcome: CompareOutcome) -> None:
        """List the structures and the means."""
        means = (outcome.mean[name] for name in ("dice", "hd95", "asd"))
        super().show((*outcome.scores, StructureScore(_("Mean"), _MEAN, *means, first_ml=nan, second_ml=nan)))

    def _show_row(self, number: int) -> None:
        super()._show_row(number)
        if self.rows[number].state == _MEAN:
            self._stress(number)

    def _fit(self) -> None:
        """Give the names what the numbers leave, on several lines if need be, but no less than their longest word."""
        table, header = self._table, self._table.horizontalHeader()
        numbers = range(_STRUCTURE + 1, table.columnCount)
        room = table.viewport().width - sum(max(table.sizeHintForColumn(c), header.sectionSizeHint(c)) for c in numbers)
        width = max(room, self._longest_word_pixels() + _RIM_PIXELS)
        if header.sectionSize(_STRUCTURE) != width:
            header.resizeSection(_STRUCTURE, width)
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
