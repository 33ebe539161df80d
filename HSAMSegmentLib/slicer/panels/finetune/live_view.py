"""How a fine-tuning goes and what came out: Dice per organ, the picture of a held-out slice, the chart."""

from __future__ import annotations

import qt
from slicer.i18n import tr as _

from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.report.preview_picture import outline_colors
from HSAMSegmentLib.slicer.nodes.finetune.chart import TrainingChart
from HSAMSegmentLib.slicer.panels.widgets.long_words import show_text
from HSAMSegmentLib.slicer.panels.widgets.tables import Column, ColumnTable
from HSAMSegmentLib.slicer.panels.widgets.theme import quiet_color
from HSAMSegmentLib.workflows.events import ValidationPicture
from HSAMSegmentLib.workflows.finetune.finetune_request import FinetuneOutcome
from HSAMSegmentLib.workflows.finetune.validation_record import ValidationRecord

NOW = 2
_NARROWEST, _BORDERS = 240, 24
"""Width in pixels that a picture always gets, and of what is beside it in the panel."""


class LiveView:
    """Belongs to one fine-tuning at a time."""

    def __init__(self, ui) -> None:
        self._ui = ui
        self._labels = LabelSet(())
        self.chart: TrainingChart | None = None
        self._records: list[ValidationRecord] = []
        self._was_brought = False
        self._dice: dict[str, float] = {}
        self._before: dict[str, float] = {}
        self._table = ColumnTable(
            ui.diceTable,
            Column(_("Organ"), lambda label: label.name, swatch=self._color, is_stretched=True),
            Column(
                _("Dice before"), lambda label: _number(self._before.get(label.name)), color=lambda _row: quiet_color()
            ),
            Column(_("Dice now"), lambda label: _number(self._dice.get(label.name)), self._tip),
            wraps=True,
        )
        ui.chartButton.connect("clicked()", self._show_chart)
        ui.liveChartBox.connect("toggled(bool)", self._on_live_chart)

    def begin(self, title: str, labels: LabelSet, records: tuple[ValidationRecord, ...] = ()) -> None:
        """A fine-tuning starts, or goes on after these validations."""
        self._labels, self._records = labels, list(records)
        self.chart, self._was_brought = TrainingChart(title, labels), False
        self._ui.previewLabel.clear()
        self._ui.previewCaption.setText("")
        self._ui.diceNoteLabel.setText(_("Waiting for the first validation on the held-out slices."))
        self._ui.diceTable.horizontalHeaderItem(NOW).setText(_("Dice now"))
        self._ui.liveSection.visible = True
        self._ui.liveSection.collapsed = False
        if self._records:
            self.chart.show(self._records)
            self._bring_chart()
        self._show_dice({})

    def add(self, record: ValidationRecord) -> None:
        """Show the numbers of one validation."""
        self._records = [item for item in self._records if item.step < record.step] + [record]
        self.chart.show(self._records)
        self._bring_chart()
        best = max((item for item in self._records if item.best), key=lambda item: item.step, default=None)
        self._show_dice(record.dice)
        note = _("Nothing is held out, so the quality of the model is unknown.")
        if record.dice and best is not None:
            note = _("Measured on held-out slices. Best so far: {dice:.2f} on average, at step {step}.").format(
                dice=best.mean_dice or 0.0, step=best.step
            )
        self._ui.diceNoteLabel.setText(note)

    def show_picture(self, picture: ValidationPicture) -> None:
        """Show a held-out slice."""
        pixmap = qt.QPixmap(picture.file)
        if pixmap.isNull():
            return
        room = max(_NARROWEST, self._ui.liveSection.width - _BORDERS)
        shown = pixmap.scaledToWidth(min(room, pixmap.width()), qt.Qt.SmoothTransformation)
        self._ui.previewLabel.setPixmap(shown)
        self._ui.previewLabel.setMinimumHeight(shown.height())
        show_text(
            self._ui.previewCaption,
            _("'{case}', held-out slice {index}: your labels (left), the model (right)").format(
                case=picture.case, index=picture.slice_index
            ),
        )

    def finish(self, outcome: FinetuneOutcome) -> None:
        """Show what came out, said for what it is."""
        self._ui.diceTable.horizontalHeaderItem(NOW).setText(_("Dice of the model"))
        self._show_dice(outcome.dice, outcome.start_dice)
        show_text(self._ui.diceNoteLabel, "\n".join([said_for_what_it_is(outcome), *outcome.notes]))

    def forget_nodes(self) -> None:
        """The scene was closed: the next numbers come into the next scene."""
        if self.chart is not None:
            self.chart.table_node = self.chart.chart_node = None

    def _show_dice(self, dice: dict[str, float], before: dict[str, float] | None = None) -> None:
        if before is None:
            first = self._records[0] if self._records else None
            before = first.dice if first is not None and first.step == 0 else {}
        self._dice, self._before = dice, before
        self._table.show(self._labels)

    def _color(self, label: Label) -> tuple[float, float, float]:
        """That of the picture, so that the table is its legend."""
        return outline_colors(tuple(self._labels))[label.value]

    def _tip(self, label: Label) -> str:
        """Why an organ has no number, empty if it has one or before the first validation."""
        return _("No held-out slice has this organ.") if self._dice and label.name not in self._dice else ""

    def _bring_chart(self) -> None:
        """Show the chart once per fine-tuning; a plot view that the user closes stays closed."""
        if self._ui.liveChartBox.checked and not self._was_brought:
            self._was_brought = True
            self.chart.show_in_layout()

    def _on_live_chart(self, is_wanted: bool) -> None:
        if is_wanted:
            self._show_chart()
        elif self.chart is not None:
            self.chart.give_layout_back()

    def _show_chart(self) -> None:
        if self.chart is not None and self._records:
            self.chart.show(self._records)
            self.chart.show_in_layout()


def said_for_what_it_is(outcome: FinetuneOutcome) -> str:
    """What the Dice of a model means, and what it does not."""
    if not outcome.dice:
        return _("Nothing was held out, so the quality of this model is unknown. Check it on another scan.")
    if outcome.dice == outcome.start_dice:
        return _(
            "It did not get better than what it started from, so the model is as good as that one. Give it more "
            "minutes, or more scans."
        )
    if "same scan" in outcome.validated_on:
        return _(
            "Measured on slices that were held out of the scans it was fine-tuned on. On other scans it will be worse; "
            "check it on a labeled scan it never saw."
        )
    return _("Measured on {what}.").format(what=outcome.validated_on)


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"
