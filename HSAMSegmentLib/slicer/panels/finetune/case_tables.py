"""The tables of the labeled scans, and of the organs that a model learns from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import qt
from slicer.i18n import tr as _

from HSAMSegmentLib.labels.label_set import Label
from HSAMSegmentLib.slicer.nodes.finetune.cases import FilePair, LabeledPair
from HSAMSegmentLib.slicer.panels.widgets.dialogs import Dialogs
from HSAMSegmentLib.slicer.panels.widgets.tables import Column, ColumnTable
from HSAMSegmentLib.slicer.panels.widgets.theme import problem_color, tip_of
from HSAMSegmentLib.workflows.finetune.inspect_cases import CaseSummary, join_organs

ORGAN, LEARN_AS = 0, 2
SCANS = "Scans (*.nii *.nii.gz *.nrrd *.nhdr *.mha *.mhd *.dcm)"
LABELS = "Labels (*.seg.nrrd *.nrrd *.nii *.nii.gz *.mha *.mhd *.dcm)"


def ask_files(dialogs: Dialogs) -> FilePair | None:
    """A scan and its labels that are not in the scene, None if the user changed their mind."""
    image = dialogs.open_path(_("The scan"), SCANS)
    labels = dialogs.open_path(_("Its labels"), LABELS) if image else ""
    return FilePair(image, labels) if labels else None


class CaseTable(ColumnTable):
    """One row per case."""

    def __init__(self, widget) -> None:
        super().__init__(
            widget,
            Column(_("Scan"), lambda case: case.name, _name_tip, is_stretched=True),
            Column(_("Organs"), _organs, lambda case: _notes(case) or _organs(case), _color, is_stretched=True),
            Column(_("Labeled slices"), _slices, _notes),
            fewest=2,
            most=6,
        )
        widget.setTextElideMode(qt.Qt.ElideMiddle)

    def show(self, pairs: Iterable[LabeledPair]) -> None:
        """List cases as they are known; nothing is looked into here."""
        super().show(pair.summary or CaseSummary(_("reading...")) for pair in pairs)

    @property
    def selected(self) -> int | None:
        """The row that the user selected, or the only one."""
        row = self._table.currentRow()
        if row >= 0:
            return row
        return 0 if len(self.rows) == 1 else None


def _name_tip(case: CaseSummary) -> str:
    return tip_of((case.name, case.problem, *case.notes))


def _notes(case: CaseSummary) -> str:
    return "" if case.problem else tip_of(case.notes)


def _organs(case: CaseSummary) -> str:
    return case.problem or ", ".join(organ.label.name for organ in case.organs)


def _color(case: CaseSummary) -> str:
    return problem_color() if case.problem else ""


def _slices(case: CaseSummary) -> str:
    if case.problem or not case.slices:
        return "-" if case.problem else ""
    count = _("{count} of {total}").format(count=case.labeled_slices, total=case.slices)
    return f"{count} (!)" if case.notes else count


class OrganTable(ColumnTable):
    """One row per name that the cases have; rows with the same name in the last column are one organ."""

    def __init__(self, widget, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._chosen: dict[str, str] = {}
        self._unchecked: Sequence[str] = ()
        self._proposed: dict[str, str] = {}
        self._labels: dict[str, list[Label]] = {}
        super().__init__(
            widget,
            Column(_("Organ"), str, swatch=self._color, is_checked=self._is_wanted, is_stretched=True),
            Column(_("Scans"), lambda source: str(len(self._labels[source]))),
            Column(_("Learn as"), self._target, is_stretched=True, is_editable=True),
            fewest=2,
            wraps=True,
        )
        widget.connect("itemChanged(QTableWidgetItem*)", self._on_item)

    def show(self, summaries: Sequence[CaseSummary], chosen: dict[str, str], left_out: Sequence[str]) -> None:
        """List the organs of all cases.

        Args:
            summaries: of the cases that can be used.
            chosen: names that the user gave, by the name in the case.
            left_out: names (as learned) without a check mark.
        """
        self._chosen, self._unchecked = dict(chosen), left_out
        self._proposed = join_organs(summaries)
        self._labels = {source: _labels_named(source, summaries) for source in self._proposed}
        super().show(self._proposed)

    @property
    def names(self) -> dict[str, str]:
        """Name in a case to the name it is learned as, of all rows."""
        return {source: self._target(source) for source in self.rows}

    @property
    def chosen_names(self) -> dict[str, str]:
        """The names that the user changed."""
        return {source: target for source, target in self._chosen.items() if target}

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names (as learned) without a check mark on any of their rows."""
        kept = {self._target(source) for row, source in enumerate(self.rows) if self._is_checked(row)}
        others = dict.fromkeys(self._target(source) for source in self.rows)
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

    def _is_wanted(self, source: str) -> bool:
        return self._target(source) not in self._unchecked

    def _color(self, source: str) -> tuple[float, float, float]:
        return self._labels[source][0].color

    def _on_item(self, item) -> None:
        if item.column() == LEARN_AS:
            source, name = self.rows[item.row()], item.text().strip()
            self._chosen[source] = "" if name == self._proposed[source] else name
        self._on_change()


def _labels_named(name: str, summaries: Sequence[CaseSummary]) -> list[Label]:
    """The label of this name in each case that has it."""
    return [organ.label for summary in summaries for organ in summary.organs if organ.label.name == name]
