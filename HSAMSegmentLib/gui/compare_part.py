"""The "Compare" tab."""

from __future__ import annotations

import qt

from HSAMSegmentLib.gui.parts import PartContext


class ComparePart:
    """Stands where the part will be."""

    def __init__(self, context: PartContext) -> None:
        self._context = context
        self.widget = qt.QWidget()

    def show_parameters(self, node) -> None:
        """Show the settings of a scene."""

    def refresh(self) -> None:
        """The shared engine is free again."""

    def exit(self) -> None:
        """Another tab or module is in sight."""

    def leave_scene(self) -> None:
        """The scene is about to be closed."""

    def close(self) -> None:
        """The panel goes away."""


def build(context: PartContext) -> ComparePart:
    """Make the part."""
    return ComparePart(context)
