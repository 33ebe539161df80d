"""The progress of a fine-tuning in the scene: a table of its numbers, and a chart of it in Slicer's own plot view."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten

import slicer
import vtk

from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.report.preview_picture import outline_colors
from HSAMSegmentLib.runtime.translation import tr as _
from HSAMSegmentLib.slicer.nodes.segment_session import is_in_scene
from HSAMSegmentLib.workflows.finetune.validation_record import ValidationRecord

STEP, MINUTES, LOSS, RELATIVE, MEAN = "Step", "Minutes", "Loss", "Loss relative to its highest", "Mean Dice"
KEPT = "Mean Dice of the kept state"
KIND_ATTRIBUTE = "HSAMSegment.Teaching"
_ROOM_AFTER_NEWEST, _SHORTEST_MINUTES = 1.05, 0.1
_LONGEST_TITLE = 32
"""Letters; a plot view is about a quarter of the window."""
_LOSS_GRAY, _KEPT_BLACK = (0.45, 0.45, 0.45), (0.0, 0.0, 0.0)
_DARKEST, _LIGHTEST = 0.25, 0.62
"""Lightness of lines on white paper."""


@dataclass(frozen=True)
class Style:
    """How a series is drawn, in the words of Slicer's plots.

    Attributes:
        line: "Solid", "Dash" or "None".
        marker: "Circle", "Diamond" or "None".
        size: of the marker in points.
    """

    line: str = "Solid"
    marker: str = "Circle"
    size: int = 7


class TrainingChart:
    """One table node, its series and its chart; made when the first numbers come, and anew if the scene was closed."""

    def __init__(self, title: str, labels: LabelSet) -> None:
        self._title, self._labels = title, labels
        self._records: list[ValidationRecord] = []
        self.table_node = self.chart_node = None
        self._layout_before: int | None = None

    def show(self, records: Sequence[ValidationRecord]) -> None:
        """Show these numbers and no others."""
        self._records = list(records)
        if not is_in_scene(self.table_node) or not is_in_scene(self.chart_node):
            self._make_nodes()
        self._fill_table()

    def add(self, record: ValidationRecord) -> None:
        """Append one validation; steps that were taken again after an interruption count once."""
        self.show([item for item in self._records if item.step < record.step] + [record])

    def show_in_layout(self) -> None:
        """Bring the chart into sight, in a layout with a plot view."""
        if not is_in_scene(self.chart_node):
            return
        layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        before = None if layout is None else layout.GetViewArrangement()
        slicer.modules.plots.logic().ShowChartInLayout(self.chart_node)
        if layout is not None and layout.GetViewArrangement() != before:
            self._layout_before = before

    def give_layout_back(self) -> None:
        """Arrange the views as they were before the chart came into sight."""
        layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        if self._layout_before is not None and layout is not None:
            layout.SetViewArrangement(self._layout_before)
        self._layout_before = None

    def _make_nodes(self) -> None:
        name = slicer.mrmlScene.GenerateUniqueName(f"Fine-tuning {self._title}")
        self.table_node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
        self.table_node.SetAttribute(KIND_ATTRIBUTE, "table")
        self._make_columns()
        self.chart_node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", f"{name} chart")
        self.chart_node.SetAttribute(KIND_ATTRIBUTE, "chart")
        self.chart_node.SetTitle(shorten(self._title, _LONGEST_TITLE, placeholder="..."))
        self.chart_node.SetXAxisTitle(_("Minutes (diamond: kept)"))
        self.chart_node.SetYAxisTitle(_("Dice (lines), relative loss (dashes)"))
        self.chart_node.SetYAxisRangeAuto(False)
        self.chart_node.SetYAxisRange(0.0, 1.02)
        self.chart_node.SetXAxisRangeAuto(False)
        # A legend in a view of this size covers the newest points; the table in the panel has the colors of the lines.
        self.chart_node.SetLegendVisibility(False)
        colors = outline_colors(tuple(self._labels))
        for label in self._labels:
            self._add_series(_dice_column(label), label.name, line_color(colors[label.value]))
        self._add_series(RELATIVE, _("Loss (highest = 1)"), _LOSS_GRAY, Style(line="Dash", marker="None"))
        self._add_series(KEPT, _("Kept (mean)"), _KEPT_BLACK, Style(line="None", marker="Diamond", size=13))

    def _make_columns(self) -> None:
        columns = [MINUTES, LOSS, RELATIVE, *(_dice_column(label) for label in self._labels), MEAN, KEPT]
        steps = vtk.vtkIntArray()
        steps.SetName(STEP)
        self.table_node.AddColumn(steps)
        for name in columns:
            column = vtk.vtkFloatArray()
            column.SetName(name)
            self.table_node.AddColumn(column)

    def _add_series(self, column: str, name: str, color: tuple[float, float, float], style: Style = Style()) -> None:
        series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
        series.SetAndObserveTableNodeID(self.table_node.GetID())
        series.SetXColumnName(MINUTES)
        series.SetYColumnName(column)
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        kind = slicer.vtkMRMLPlotSeriesNode
        series.SetLineStyle(getattr(kind, f"LineStyle{style.line}"))
        series.SetMarkerStyle(getattr(kind, f"MarkerStyle{style.marker}"))
        series.SetMarkerSize(style.size)
        series.SetLineWidth(2)
        series.SetColor(*color)
        self.chart_node.AddAndObservePlotSeriesNodeID(series.GetID())

    def _fill_table(self) -> None:
        table = self.table_node.GetTable()
        modified = self.table_node.StartModify()
        table.SetNumberOfRows(len(self._records))
        kept = max((row for row, record in enumerate(self._records) if record.best), default=None)
        for row, record in enumerate(self._records):
            for column, value in self._row(record).items():
                table.GetColumnByName(column).SetValue(row, value)
            mean = table.GetColumnByName(MEAN).GetValue(row)
            table.GetColumnByName(KEPT).SetValue(row, mean if row == kept else float("nan"))
        table.Modified()
        self.table_node.Modified()
        self.table_node.EndModify(modified)
        minutes = max((record.seconds / 60.0 for record in self._records), default=0.0)
        self.chart_node.SetXAxisRange(0.0, max(_ROOM_AFTER_NEWEST * minutes, _SHORTEST_MINUTES))

    def _row(self, record: ValidationRecord) -> dict[str, float]:
        nothing = float("nan")
        row = {STEP: record.step, MINUTES: record.seconds / 60.0, LOSS: nothing, RELATIVE: nothing}
        if record.loss is not None:
            highest = max(item.loss for item in self._records if item.loss is not None)
            row.update({LOSS: record.loss, RELATIVE: record.loss / max(highest, 1e-9)})
        row.update({_dice_column(label): record.dice.get(label.name, nothing) for label in self._labels})
        return {**row, MEAN: nothing if record.mean_dice is None else record.mean_dice}


def line_color(color: tuple[float, float, float]) -> tuple[float, float, float]:
    """The color of a segment, dark enough for a line on white and light enough to be told from black."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*color)
    return colorsys.hls_to_rgb(hue, min(max(lightness, _DARKEST), _LIGHTEST - 0.15), max(saturation, 0.35))


def _dice_column(label: Label) -> str:
    return f"Dice {label.name}"
