"""The table of labeled scans: what each holds, and why it cannot be used if it cannot."""

from __future__ import annotations

from collections.abc import Iterable

import qt
from slicer.i18n import tr as _

from HSAMSegmentLib.slicer.nodes.finetune.cases import FilePair, LabeledPair
from HSAMSegmentLib.slicer.panels.widgets.dialogs import Dialogs
from HSAMSegmentLib.slicer.panels.widgets.tables import Column, ColumnTable
from HSAMSegmentLib.slicer.panels.widgets.theme import problem_color, tip_of
from HSAMSegmentLib.workflows.finetune.inspect_cases import CaseSummary

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
