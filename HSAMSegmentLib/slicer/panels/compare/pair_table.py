"""Which structure of A is which of B: a guess that the user can change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import qt
from slicer.i18n import tr as _

from HSAMSegmentLib.evaluation.label_matching import CODE, NAME, VALUE, LabelPair, StructurePair
from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.slicer.panels.widgets.tables import Column, ColumnTable
from HSAMSegmentLib.slicer.panels.widgets.theme import swatch

_ROW_PIXELS = 26
_COMBO_LETTERS = 10
_NOTHING, _LEFT_OUT = -1, -2
_FIXED_CHOICES = 2
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
