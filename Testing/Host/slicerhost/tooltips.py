"""How the application shows a tooltip: its text wrapped in a paragraph, in the style sheet of its widget."""

from __future__ import annotations

import qt


class ShownToolTip:
    """A tooltip as it appears.

    Attributes:
        lines: what is read, line by line.
        is_bold: whether it is set in bold type.
    """

    def __init__(self, widget, text=None):
        """Show the tooltip of a widget, or another text at the same place (that of an item)."""
        text = f"<p>{widget.toolTip if text is None else text}</p>"
        document = qt.QTextDocument()
        document.setHtml(text)
        self.lines = [line for line in document.toPlainText().split("\n") if line]
        qt.QToolTip.showText(qt.QPoint(5, 5), text, widget)
        tip = next(item for item in qt.QApplication.topLevelWidgets() if item.className() == "QTipLabel")
        tip.ensurePolished()
        self.is_bold = tip.font.bold()
        qt.QToolTip.hideText()
