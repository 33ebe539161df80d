"""The table of labeled scans: what each holds, and why it cannot be used if it cannot."""

from __future__ import annotations

from collections.abc import Sequence

import qt
from slicer.i18n import tr as _

from HSAMSegmentLib.slicer.nodes.finetune.cases import FilePair, LabeledPair
from HSAMSegmentLib.slicer.panels.widgets.dialogs import Dialogs
from HSAMSegmentLib.slicer.panels.widgets.tables import prepare_table, put_text, set_rows
from HSAMSegmentLib.slicer.panels.widgets.theme import problem_color, tip_of
from HSAMSegmentLib.workflows.finetune.inspect_cases import CaseSummary

SCAN, ORGANS, SLICES = range(3)
SCANS = "Scans (*.nii *.nii.gz *.nrrd *.nhdr *.mha *.mhd *.dcm)"
LABELS = "Labels (*.seg.nrrd *.nrrd *.nii *.nii.gz *.mha *.mhd *.dcm)"


def ask_files(dialogs: Dialogs) -> FilePair | None:
    """A scan and its labels that are not in the scene, None if the user changed their mind."""
    image = dialogs.open_path(_("The scan"), SCANS)
    labels = dialogs.open_path(_("Its labels"), LABELS) if image else ""
    return FilePair(image, labels) if labels else None


class CaseTable:
    """One row per case."""

    def __init__(self, table) -> None:
        self._table = table
        prepare_table(table, [_("Scan"), _("Organs"), _("Labeled slices")], stretched=ORGANS)
        table.horizontalHeader().setSectionResizeMode(SCAN, qt.QHeaderView.Stretch)
        table.setTextElideMode(qt.Qt.ElideMiddle)

    def show(self, pairs: Sequence[LabeledPair]) -> None:
        """List cases as they are known; nothing is looked into here."""
        set_rows(self._table, len(pairs), fewest=2, most=6)
        for row, pair in enumerate(pairs):
            self._show_row(row, pair.summary)

    @property
    def selected(self) -> int | None:
        """The row that the user selected, or the only one."""
        row = self._table.currentRow()
        if row >= 0:
            return row
        return 0 if self._table.rowCount == 1 else None

    def _show_row(self, row: int, summary: CaseSummary | None) -> None:
        if summary is None:
            put_text(self._table, row, SCAN, _("reading..."))
            return
        tip = tip_of([summary.problem] if summary.problem else summary.notes)
        put_text(self._table, row, SCAN, summary.name, tip="<br>".join(filter(None, (tip_of([summary.name]), tip))))
        if summary.problem:
            put_text(self._table, row, ORGANS, summary.problem, color=problem_color(), tip=summary.problem)
            put_text(self._table, row, SLICES, "-")
            return
        names = ", ".join(organ.label.name for organ in summary.organs)
        put_text(self._table, row, ORGANS, names, tip=tip or names)
        count = _("{count} of {total}").format(count=summary.labeled_slices, total=summary.slices)
        put_text(self._table, row, SLICES, f"{count} (!)" if summary.notes else count, tip=tip)
