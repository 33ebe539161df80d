"""Small squares of color beside names."""

from __future__ import annotations

import qt


def swatch(color: tuple[float, float, float]):
    """An icon of one color (red, green, blue, each 0 to 1)."""
    picture = qt.QPixmap(12, 12)
    picture.fill(qt.QColor.fromRgbF(*color))
    return qt.QIcon(picture)
