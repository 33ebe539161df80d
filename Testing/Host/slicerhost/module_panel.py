"""Slicer's module panel around a module: a scroll area with height for width, the help section on top.

What a form hides when it stands alone shows here: a page that asks for more height than it needs, a section that takes
a share of the spare height, a list that makes the dock wide.
"""

from __future__ import annotations

import ctk
import qt

_HELP_MARGIN = 3


class ModulePanel(qt.QScrollArea):
    """The dock on the left of the application, with one module in it."""

    def __init__(self, module_widget, width, height):
        """Take a module's widget in.

        Args:
            module_widget: what the module manager made for it.
            width: of the dock, in pixels.
            height: of the dock, in pixels: 720 is a small screen, 1050 a large one.
        """
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(qt.QFrame.NoFrame)
        content = qt.QWidget()
        layout = qt.QVBoxLayout(content)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(_HELP_MARGIN)
        self._help = ctk.ctkCollapsibleButton()
        self._help.setText("Help && Acknowledgement")
        self._help.setCollapsed(True)
        layout.addWidget(self._help)
        module_widget.layout().setContentsMargins(0, 0, 0, 0)
        layout.addWidget(module_widget, 1)
        self.setWidget(content)
        self.module_widget = module_widget
        self.resize(width, height)

    def needed_width(self):
        """The narrowest that the dock can be: the application never makes it narrower than its content and the bar."""
        return self.widget().minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width()

    def give_back(self):
        """Take the module's widget out again, for another panel."""
        self.module_widget.setParent(None)
        self.takeWidget()
        self.hide()
        self.deleteLater()
