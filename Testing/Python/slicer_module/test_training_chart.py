"""The chart of a fine-tuning, in a plot view of the size that Slicer gives it."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.host


def test_nothing_covers_the_newest_points_in_a_plot_view_of_a_quarter_of_the_window(scene):
    from slicerhost.plot_view import PlotView

    from HSAMSegmentLib.labels.terminology import label_set_of
    from HSAMSegmentLib.slicer.nodes.finetune.chart import MINUTES, TrainingChart
    from HSAMSegmentLib.workflows.finetune.validation_record import ValidationRecord

    names = {value: f"A structure with a long name {value}" for value in range(1, 9)}
    chart = TrainingChart("A structure with a long name, another one, a third and 5 more", label_set_of(names))
    for step in range(4):
        dice = {name: 0.9 + 0.01 * value for value, name in names.items()}
        chart.add(ValidationRecord(step, 60.0 * (1 + step), 1.0 - 0.2 * step, dice, step == 3))
    view = PlotView(chart.chart_node)
    view.draw()
    table = chart.table_node.GetTable()
    newest = table.GetNumberOfRows() - 1
    minutes = table.GetColumnByName(MINUTES).GetValue(newest)
    values = [table.GetColumn(number).GetValue(newest) for number in range(3, table.GetNumberOfColumns())]
    assert len(values) == 11, "the relative loss, eight structures, their mean, what is kept"
    assert [value for value in values if view.is_under_legend(minutes, value)] == []
    assert minutes <= view.chart.GetAxis(1).GetMaximum() <= 1.1 * minutes
    assert len(chart.chart_node.GetTitle()) <= 32
