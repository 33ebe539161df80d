"""What every table of the panel gets from the class that fills them."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.host
NAMES = ["liver", "left ventricular myocardium", "spleen"]


@pytest.fixture
def make_table(host):
    """Fills a narrow table widget; returns the table and its widget."""
    import qt

    from HSAMSegmentLib.slicer.panels.widgets.tables import ColumnTable

    widgets = []

    def make(*columns, **options):
        widgets.append(qt.QTableWidget())
        widgets[-1].resize(120, 100)
        table = ColumnTable(widgets[-1], *columns, **options)
        table.show(NAMES)
        return table, widgets[-1]

    yield make
    for widget in widgets:
        widget.delete()


def test_a_user_edits_the_columns_that_say_so_and_no_others(make_table):
    import qt

    from HSAMSegmentLib.slicer.panels.widgets.tables import Column

    _, widget = make_table(Column("Organ", str), Column("Name", str, is_editable=True))
    editable = [bool(widget.item(0, column).flags() & qt.Qt.ItemIsEditable) for column in range(2)]
    assert editable == [False, True]
    assert widget.editTriggers & qt.QAbstractItemView.EditKeyPressed, "also without a mouse"
    _, widget = make_table(Column("Organ", str))
    assert widget.editTriggers == qt.QAbstractItemView.NoEditTriggers


def test_filling_is_no_change_by_the_user(make_table):
    import qt

    from HSAMSegmentLib.slicer.panels.widgets.tables import Column

    table, widget = make_table(Column("Organ", str, is_checked=lambda name: name != "spleen"))
    changed = []
    widget.connect("itemChanged(QTableWidgetItem*)", lambda item: changed.append(item.row()))
    table.show(NAMES[1:])
    assert changed == []
    assert [widget.item(row, 0).checkState() for row in range(2)] == [qt.Qt.Checked, qt.Qt.Unchecked]
    widget.item(1, 0).setCheckState(qt.Qt.Checked)
    assert changed == [1]


def test_a_table_is_as_high_as_its_rows_within_its_bounds(make_table):
    from HSAMSegmentLib.slicer.panels.widgets.tables import ROW_PIXELS, Column

    table, widget = make_table(Column("Organ", str, is_stretched=True), fewest=2, most=2)
    two_rows = widget.height
    table.show([])
    assert widget.height == two_rows
    table, widget = make_table(Column("Organ", str, is_stretched=True))
    assert widget.height == two_rows + ROW_PIXELS


def test_long_texts_take_more_lines_only_where_a_table_wraps(make_table):
    from HSAMSegmentLib.slicer.panels.widgets.tables import Column

    _, plain = make_table(Column("Organ", str, is_stretched=True))
    _, wrapping = make_table(Column("Organ", str, is_stretched=True), wraps=True)
    assert plain.rowHeight(1) == plain.rowHeight(0)
    assert wrapping.rowHeight(1) > wrapping.rowHeight(0)
