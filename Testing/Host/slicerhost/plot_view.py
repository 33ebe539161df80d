"""Stand-in for Slicer's plot view: draws the chart node of the scene with VTK's charts, offscreen."""

from __future__ import annotations

import slicer
import vtk

QUARTER = (340, 330)
"""Pixels of a plot view in the layout that shows it with two slice views, in a window on a small screen."""


class PlotView:
    """One chart, drawn when it is grabbed."""

    def __init__(self, chart_node, size=QUARTER):
        self._node = chart_node
        self._view = vtk.vtkContextView()
        self._view.GetRenderWindow().SetOffScreenRendering(1)
        self._view.GetRenderWindow().SetSize(*size)
        self._view.GetRenderer().SetBackground(1, 1, 1)
        self.chart = vtk.vtkChartXY()
        self._view.GetScene().AddItem(self.chart)

    def draw(self):
        """Draw the chart as the nodes say it."""
        self._draw()
        self._view.GetRenderWindow().SetMultiSamples(0)
        self._view.Render()

    def is_under_legend(self, x, y):
        """Whether the legend covers a point of the plot, given in the units of its axes."""
        if not self.chart.GetShowLegend():
            return False
        left, bottom, width, height = self._legend_box()
        across = self._pixel(vtk.vtkAxis.BOTTOM, x, 0)
        up = self._pixel(vtk.vtkAxis.LEFT, y, 1)
        return left <= across <= left + width and bottom <= up <= bottom + height

    def _legend_box(self):
        box = self.chart.GetLegend().GetBoundingRect(self._view.GetContext())
        return box.GetX(), box.GetY(), box.GetWidth(), box.GetHeight()

    def _pixel(self, position, value, coordinate):
        axis = self.chart.GetAxis(position)
        first, last = axis.GetPoint1()[coordinate], axis.GetPoint2()[coordinate]
        return first + (last - first) * (value - axis.GetMinimum()) / (axis.GetMaximum() - axis.GetMinimum())

    def grab(self, path):
        """Draw the chart, and save it as a PNG."""
        self.draw()
        grabber = vtk.vtkWindowToImageFilter()
        grabber.SetInput(self._view.GetRenderWindow())
        writer = vtk.vtkPNGWriter()
        writer.SetFileName(str(path))
        writer.SetInputConnection(grabber.GetOutputPort())
        writer.Write()

    def _draw(self):
        node, chart = self._node, self.chart
        chart.ClearPlots()
        chart.SetTitle(node.GetTitle() or "")
        chart.GetTitleProperties().SetFontSize(16)
        chart.SetShowLegend(bool(node.GetLegendVisibility()))
        chart.GetLegend().SetDragEnabled(True)
        bottom, left = chart.GetAxis(vtk.vtkAxis.BOTTOM), chart.GetAxis(vtk.vtkAxis.LEFT)
        bottom.SetTitle(node.GetXAxisTitle() or "")
        left.SetTitle(node.GetYAxisTitle() or "")
        self._fix(left, node.GetYAxisRangeAuto(), node.GetYAxisRange())
        self._fix(bottom, node.GetXAxisRangeAuto(), node.GetXAxisRange())
        for index in range(node.GetNumberOfPlotSeriesNodes()):
            self._draw_series(node.GetNthPlotSeriesNode(index))
        chart.RecalculateBounds()

    @staticmethod
    def _fix(axis, is_automatic, bounds):
        if not is_automatic:
            axis.SetBehavior(vtk.vtkAxis.FIXED)
            axis.SetRange(*bounds)

    def _draw_series(self, series):
        table = series.GetTableNode().GetTable()
        columns = [table.GetColumnName(index) for index in range(table.GetNumberOfColumns())]
        plot = self.chart.AddPlot(vtk.vtkChart.LINE)
        plot.SetInputData(table, columns.index(series.GetXColumnName()), columns.index(series.GetYColumnName()))
        plot.SetLabel(series.GetName())
        plot.SetColorF(*series.GetColor())
        plot.SetWidth(series.GetLineWidth())
        kind = slicer.vtkMRMLPlotSeriesNode
        lines = {kind.LineStyleDash: vtk.vtkPen.DASH_LINE, kind.LineStyleNone: vtk.vtkPen.NO_PEN}
        plot.GetPen().SetLineType(lines.get(series.GetLineStyle(), vtk.vtkPen.SOLID_LINE))
        markers = {
            kind.MarkerStyleCircle: vtk.vtkPlotPoints.CIRCLE,
            kind.MarkerStyleDiamond: vtk.vtkPlotPoints.DIAMOND,
        }
        plot.SetMarkerStyle(markers.get(series.GetMarkerStyle(), vtk.vtkPlotPoints.NONE))
        plot.SetMarkerSize(series.GetMarkerSize())
