"""Small squares of color beside names."""

from __future__ import annotations

import qt

from HSAMSegmentLib.slicer.panels.widgets.theme import quiet_color

_PIXELS = 13


def swatch(color: tuple[float, float, float]):
    """An icon of one color (red, green, blue, each 0 to 1), with a rim that shows it on a ground of the same color."""
    picture = qt.QPixmap(_PIXELS, _PIXELS)
    picture.fill(qt.QColor(quiet_color()))
    inside = qt.QPixmap(_PIXELS - 2, _PIXELS - 2)
    inside.fill(qt.QColor.fromRgbF(*color))
    painter = qt.QPainter(picture)
    painter.drawPixmap(1, 1, inside)
    painter.end()
    return qt.QIcon(picture)
