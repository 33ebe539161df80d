"""The looks of the application: its narrow margins, and a light and a dark palette."""

from __future__ import annotations

import qt
from PySide6.QtWidgets import QProxyStyle

DARK, LIGHT = "dark", "light"
_MARGIN, _SPACING = 4, 4


class SlicerStyle(QProxyStyle):
    """Fusion with the narrow margins that the application has."""

    _METRICS = {  # noqa: RUF012 - a constant
        **dict.fromkeys((qt.QStyle.PM_LayoutLeftMargin, qt.QStyle.PM_LayoutRightMargin), _MARGIN),
        **dict.fromkeys((qt.QStyle.PM_LayoutTopMargin, qt.QStyle.PM_LayoutBottomMargin), _MARGIN),
        **dict.fromkeys((qt.QStyle.PM_LayoutHorizontalSpacing, qt.QStyle.PM_LayoutVerticalSpacing), _SPACING),
    }

    def __init__(self):
        super().__init__("Fusion")

    def pixelMetric(self, metric, option=None, widget=None):
        known = self._METRICS.get(metric)
        return known if known is not None else super().pixelMetric(metric, option, widget)


def palette(kind):
    """The light or the dark palette of the application."""
    colors = qt.QPalette()
    window, base, text = ("#f5f5f5", "#ffffff", "#000000") if kind == LIGHT else ("#2e2e2e", "#232323", "#eeeeee")
    disabled = "#9a9a9a" if kind == LIGHT else "#8a8a8a"
    roles = qt.QPalette
    for role, color in (
        *((role, window) for role in (roles.Window, roles.Button, roles.AlternateBase)),
        *((role, text) for role in (roles.WindowText, roles.Text, roles.ButtonText, roles.BrightText)),
        (roles.Base, base),
        (roles.ToolTipBase, base),
        (roles.ToolTipText, text),
        (roles.PlaceholderText, disabled),
    ):
        colors.setColor(role, qt.QColor(color))
    for role in (roles.WindowText, roles.Text, roles.ButtonText):
        colors.setColor(roles.Disabled, role, qt.QColor(disabled))
    return colors
