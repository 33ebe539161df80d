"""Colors of text and marks that can be read on the light and on the dark palette of the application."""

from __future__ import annotations

import qt

from HSAMSegmentLib.workflows.segment.review import Level

_LIGHT = {"link": "#1f5fa3", "quiet": "#6a6a6a", "problem": "#b3261e"}
_DARK = {"link": "#7fb8f0", "quiet": "#a8a8a8", "problem": "#ff8a80"}
_LIGHT_LEVELS = {Level.GOOD: "#1b7f3b", Level.ABSENT: "#6a6a6a", Level.LOOK: "#8a6100", Level.CHECK: "#b3261e"}
_DARK_LEVELS = {Level.GOOD: "#6fd08c", Level.ABSENT: "#a8a8a8", Level.LOOK: "#ffcf5c", Level.CHECK: "#ff8a80"}
_MIDDLE = 128


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
