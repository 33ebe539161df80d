"""The table of what was found: volumes, a traffic light with words, and the way to each organ."""

from __future__ import annotations

from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from HSAMSegmentLib.slicer.panels.widgets.swatches import swatch
from HSAMSegmentLib.slicer.panels.widgets.tables import fit_rows, prepare_table, put_text, wrap_names
from HSAMSegmentLib.slicer.panels.widgets.theme import check_ground, level_color, link_color, quiet_color
from HSAMSegmentLib.slicer.panels.widgets.tooltips import tip_of
from HSAMSegmentLib.workflows.segment.review import Level, Review, review
from HSAMSegmentLib.workflows.segment.segment_request import OrganOutcome, SegmentOutcome

ORGAN, VOLUME, CONFIDENCE, UNCERTAIN = range(4)
_MOST_ROWS = 13
GoTo = Callable[["tuple[int, int, int]"], None]


class ResultTable:
    """One row per organ. A click goes to the organ; in the last column, to its least certain slice."""

    def __init__(self, table, go_to: GoTo) -> None:
        self._table = table
        self._go_to = go_to
        self._organs: list[OrganOutcome] = []
        prepare_table(table, [_("Organ"), _("Volume"), _("Confidence"), _("Doubt")], stretched=ORGAN)
        table.horizontalHeaderItem(CONFIDENCE).setToolTip(
            _("How certain the model is, to compare structures of one model. It is not a probability of being right.")
        )
        table.horizontalHeaderItem(UNCERTAIN).setToolTip(_("Goes to the slice in which the model is least certain."))
        self._timer = wrap_names(table, most=_MOST_ROWS)
        table.connect("cellClicked(int,int)", self._on_click)

    def show(self, outcome: SegmentOutcome) -> None:
        """List the organs of an outcome, those that were found first."""
        self._organs = sorted(outcome.organs, key=lambda organ: not organ.found)
        self._table.setRowCount(0)
        self._table.setRowCount(len(self._organs))
        for row, organ in enumerate(self._organs):
            self._show_row(row, organ, review(organ))
        fit_rows(self._table, most=_MOST_ROWS)

    def _show_row(self, row: int, organ: OrganOutcome, found: Review) -> None:
        quiet, tip = "" if organ.found else quiet_color(), tip_of(found.reasons)
        put_text(self._table, row, ORGAN, organ.label.name, color=quiet, tip=tip).setIcon(swatch(organ.label.color))
        volume = _volume(organ.volume_ml) if organ.found else ""
        _to_right(put_text(self._table, row, VOLUME, volume, color=quiet, tip=tip))
        put_text(self._table, row, CONFIDENCE, _light(organ, found), color=level_color(found.level), tip=tip)
        leads = _("show") if organ.uncertain_ijk is not None else ""
        put_text(self._table, row, UNCERTAIN, leads, color=link_color(), tip=tip)
        if found.level is Level.CHECK:
            self._stress(row)

    def _stress(self, row: int) -> None:
        """Bold on a ground of another brightness: a row to check is one in a gray print, too."""
        for column in range(self._table.columnCount):
            item = self._table.item(row, column)
            font = item.font()
            font.setBold(True)
            item.setFont(font)
            item.setBackground(qt.QBrush(qt.QColor(check_ground())))

    def _on_click(self, row: int, column: int) -> None:
        organ = self._organs[row]
        target = organ.uncertain_ijk if column == UNCERTAIN else organ.center_ijk
        if target is not None:
            self._go_to(target)


def _light(organ: OrganOutcome, found: Review) -> str:
    """Sign, word and number."""
    if not organ.found or organ.confidence is None:
        return found.text
    return f"{found.text} {100 * organ.confidence:.0f} %"


def _volume(milliliters: float) -> str:
    return f"{milliliters:.0f} mL" if milliliters >= 1000 else f"{milliliters:.1f} mL"


def _to_right(item) -> None:
    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
