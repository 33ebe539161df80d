"""How the panel looks: colors for the light and the dark palette, squares of color, tooltips of several lines."""

from __future__ import annotations

import html
from collections.abc import Iterable

import qt

from HSAMSegmentLib.workflows.segment.review import Level

_LIGHT = {"link": "#1f5fa3", "quiet": "#6a6a6a", "problem": "#b3261e"}
_DARK = {"link": "#7fb8f0", "quiet": "#a8a8a8", "problem": "#ff8a80"}
_LIGHT_LEVELS = {Level.GOOD: "#1b7f3b", Level.ABSENT: "#6a6a6a", Level.LOOK: "#8a6100", Level.CHECK: "#b3261e"}
_DARK_LEVELS = {Level.GOOD: "#6fd08c", Level.ABSENT: "#a8a8a8", Level.LOOK: "#ffcf5c", Level.CHECK: "#ff8a80"}
_MIDDLE = 128

_PIXELS = 13


def is_dark() -> bool:
    """Whether the application has light text on a dark ground."""
    return qt.QApplication.palette().color(qt.QPalette.Base).lightness() < _MIDDLE


def link_color() -> str:
    """Of what leads somewhere when it is clicked."""
    return (_DARK if is_dark() else _LIGHT)["link"]


def quiet_color() -> str:
    """Of what matters less."""
    return (_DARK if is_dark() else _LIGHT)["quiet"]


def problem_color() -> str:
    """Of what went wrong."""
    return (_DARK if is_dark() else _LIGHT)["problem"]


def check_ground() -> str:
    """Behind the text of what should be checked."""
    return "#5a4030" if is_dark() else "#f3d9c8"


def level_color(level: Level) -> str:
    """Of a traffic light."""
    return (_DARK_LEVELS if is_dark() else _LIGHT_LEVELS)[level]


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


def tip_of(lines: Iterable[str]) -> str:
    """Rich text that shows each sentence on a line of its own; empty ones are left out."""
    return "<br>".join(html.escape(line, quote=False) for line in lines if line)
