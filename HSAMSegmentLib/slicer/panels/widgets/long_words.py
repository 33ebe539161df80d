"""Names and paths that are too long for a narrow panel: cut where they stand, whole in the tooltip."""

from __future__ import annotations

import re

import qt

from HSAMSegmentLib.slicer.panels.widgets.theme import tip_of

_MOST_PIXELS = 320
"""Of a word; the narrowest panel has 360 for a line."""
_RIM_PIXELS = 40


def show_text(label, text: str) -> None:
    """Set the text of a label that wraps between words.

    Words that do not fit on a line, such as paths, are cut in their middle; the tooltip then has the whole text.
    """
    metrics = label.fontMetrics()

    def shown(match: re.Match) -> str:
        return metrics.elidedText(match.group(), qt.Qt.ElideMiddle, _MOST_PIXELS)

    short = re.sub(r"\S+", shown, text)
    label.setText(short)
    label.toolTip = "" if short == text else tip_of(text.split("\n"))


def one_line(text: str, widget) -> str:
    """As much of a text as fits on a line of a widget as wide as its form; the middle is left out."""
    room = widget.parentWidget().width - _RIM_PIXELS
    return widget.fontMetrics().elidedText(text, qt.Qt.ElideMiddle, max(room, _MOST_PIXELS))


def tell_whole_names(*selectors) -> None:
    """Let node selectors say in their tooltip what is chosen, before what they are for."""
    for selector in selectors:
        _tell(selector, selector.toolTip)


def _tell(selector, purpose: str) -> None:
    def on_node(*_node) -> None:
        node = selector.currentNode()
        selector.toolTip = tip_of((node.GetName() if node is not None else "", purpose))

    selector.connect("currentNodeChanged(vtkMRMLNode*)", on_node)
    on_node()
