"""Measures of a panel's layout: how high the gaps between its visible widgets are, and which texts are cut."""

from __future__ import annotations

import html


def whole_text(label):
    """What a label says; long words may be cut, then its tooltip has all of it."""
    return html.unescape(label.toolTip.replace("<br>", "\n")) or label.text


def gaps(form):
    """Heights in pixels of the bands of a form, between its first and last visible content, that show nothing."""
    spans = sorted(_span(widget, form) for widget in _visible_leaves(form))
    found, reached = [], spans[0][1]
    for top, bottom in spans[1:]:
        if top > reached:
            found.append(top - reached)
        reached = max(reached, bottom)
    return found


def overlaps(form):
    """Pairs of visible widgets of which one covers a part of the other; each is told by its name."""
    import qt

    leaves = list(_visible_leaves(form))
    boxes = [qt.QRect(widget.mapTo(form, qt.QPoint(0, 0)), widget.size) for widget in leaves]
    return [
        (first.objectName, second.objectName)
        for number, first in enumerate(leaves)
        for position, second in enumerate(leaves[number + 1 :], number + 1)
        if boxes[number].intersects(boxes[position])
    ]


def cut_texts(table, wrapped=()):
    """Texts of a table's cells that have more than their cell has room for; in wrapped columns they may take lines."""
    import qt

    texts = []
    metrics = table.fontMetrics()
    for row in range(table.rowCount):
        for column in range(table.columnCount):
            item = table.item(row, column)
            if item is None or table.isColumnHidden(column) or table.columnSpan(row, column) > 1:
                continue
            needed = metrics.horizontalAdvance(item.text()) + 2 * (
                table.style().pixelMetric(qt.QStyle.PM_FocusFrameHMargin) + 1
            )
            if not item.icon().isNull():
                needed += table.iconSize.width() + 4
            if column in wrapped:
                if table.sizeHintForRow(row) > table.rowHeight(row) or _longest_word(item.text(), metrics, needed) > (
                    table.columnWidth(column)
                ):
                    texts.append(item.text())
            elif needed > table.columnWidth(column):
                texts.append(item.text())
    return texts


def _longest_word(text, metrics, needed):
    """Width that a text needs at least, if it is broken between words."""
    around = needed - metrics.horizontalAdvance(text)
    return around + max(metrics.horizontalAdvance(word) for word in text.split())


def cut_heads(table):
    """Texts of a table's heads that are wider than their column."""
    header, metrics = table.horizontalHeader(), table.horizontalHeader().fontMetrics()
    texts = [table.horizontalHeaderItem(column).text() for column in range(table.columnCount)]
    widest = [max(metrics.horizontalAdvance(line) for line in text.split("\n")) for text in texts]
    return [text for column, text in enumerate(texts) if widest[column] > header.sectionSize(column)]


def _visible_leaves(widget):
    """The visible widgets that show something themselves."""
    import qt

    whole = (qt.QComboBox, qt.QAbstractSpinBox, qt.QAbstractItemView, qt.QAbstractButton, qt.QLineEdit, qt.QProgressBar)
    for child in widget.children():
        if not isinstance(child, qt.QWidget) or not child.isVisible() or child.height == 0:
            continue
        if isinstance(child, qt.QLabel):
            if child.text or (child.pixmap is not None and not child.pixmap.isNull()):
                yield child
        elif isinstance(child, whole):
            yield child
        else:
            yield from _visible_leaves(child)


def _span(widget, form):
    """First and last row of what a widget shows; a label may be higher than its text, a list than its rows may not."""
    import qt

    top, height = widget.mapTo(form, qt.QPoint(0, 0)).y(), widget.height
    if not isinstance(widget, qt.QLabel):
        return top, top + height
    needed = widget.heightForWidth(widget.width) if widget.wordWrap else widget.sizeHint().height()
    spare = max(0, height - needed)
    if widget.alignment & qt.Qt.AlignTop:
        spare = 0
    elif not widget.alignment & qt.Qt.AlignBottom:
        spare //= 2
    return top + spare, top + spare + min(needed, height)
