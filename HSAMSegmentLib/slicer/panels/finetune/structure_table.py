"""The table of organs to learn: a check mark, the color, in how many scans, and the name it is learned as."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import qt
from slicer.i18n import tr as _

from HSAMSegmentLib.labels.label_set import Label
from HSAMSegmentLib.slicer.panels.widgets.tables import prepare_table, put_text, set_rows, wrap_names
from HSAMSegmentLib.slicer.panels.widgets.theme import swatch
from HSAMSegmentLib.workflows.finetune.inspect_cases import CaseSummary, join_organs

ORGAN, CASES, LEARN_AS = range(3)


class OrganTable:
    """One row per name that the cases have; rows with the same name in the last column are one organ."""

    def __init__(self, table, on_change: Callable[[], None]) -> None:
        self._table = table
        self._on_change = on_change
        self._filling = False
        self._chosen: dict[str, str] = {}
        self._sources: list[str] = []
        self._proposed: dict[str, str] = {}
        prepare_table(table, [_("Organ"), _("Scans"), _("Learn as")], stretched=ORGAN)
        table.horizontalHeader().setSectionResizeMode(LEARN_AS, qt.QHeaderView.Stretch)
        self._timer = wrap_names(table, fewest=2)
        table.setEditTriggers(qt.QAbstractItemView.DoubleClicked | qt.QAbstractItemView.EditKeyPressed)
        table.connect("itemChanged(QTableWidgetItem*)", self._on_item)

    def show(self, summaries: Sequence[CaseSummary], chosen: dict[str, str], left_out: Sequence[str]) -> None:
        """List the organs of all cases.

        Args:
            summaries: of the cases that can be used.
            chosen: names that the user gave, by the name in the case.
            left_out: names (as learned) without a check mark.
        """
        self._filling = True
        self._chosen = dict(chosen)
        self._proposed = join_organs(summaries)
        self._sources = list(self._proposed)
        set_rows(self._table, len(self._sources), fewest=2)
        for row, source in enumerate(self._sources):
            self._show_row(row, source, summaries, left_out)
        self._filling = False
        self._timer.start()

    @property
    def names(self) -> dict[str, str]:
        """Name in a case to the name it is learned as, of all rows."""
        return {source: self._target(source) for source in self._sources}

    @property
    def chosen_names(self) -> dict[str, str]:
        """The names that the user changed."""
        return {source: target for source, target in self._chosen.items() if target}

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names (as learned) without a check mark on any of their rows."""
        kept = {self._target(source) for row, source in enumerate(self._sources) if self._is_checked(row)}
        others = dict.fromkeys(self._target(source) for source in self._sources)
        return tuple(name for name in others if name not in kept)

    @property
    def learned(self) -> tuple[str, ...]:
        """What will be learned."""
        left_out = self.left_out
        return tuple(name for name in dict.fromkeys(self.names.values()) if name not in left_out)

    def _target(self, source: str) -> str:
        return self._chosen.get(source) or self._proposed[source]

    def _is_checked(self, row: int) -> bool:
        return self._table.item(row, ORGAN).checkState() == qt.Qt.Checked

    def _show_row(self, row: int, source: str, summaries: Sequence[CaseSummary], left_out: Sequence[str]) -> None:
        labels = _labels_named(source, summaries)
        item = put_text(self._table, row, ORGAN, source)
        item.setFlags(qt.Qt.ItemIsUserCheckable | qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable)
        item.setCheckState(qt.Qt.Unchecked if self._target(source) in left_out else qt.Qt.Checked)
        item.setIcon(swatch(labels[0].color))
        count = put_text(self._table, row, CASES, str(len(labels)))
        count.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable)
        put_text(self._table, row, LEARN_AS, self._target(source))

    def _on_item(self, item) -> None:
        if self._filling:
            return
        if item.column() == LEARN_AS:
            source, name = self._sources[item.row()], item.text().strip()
            self._chosen[source] = "" if name == self._proposed[source] else name
        self._on_change()


def _labels_named(name: str, summaries: Sequence[CaseSummary]) -> list[Label]:
    """The label of this name in each case that has it."""
    return [organ.label for summary in summaries for organ in summary.organs if organ.label.name == name]
