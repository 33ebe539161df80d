"""Stand-in for the C++ widget around a scripted module's panel."""

from __future__ import annotations

import sys

import qt
import slicer
from qmrml import qMRMLWidget


class ModuleWidget(qMRMLWidget):
    """Creates, enters, leaves and reloads the Python widget of a module."""

    def __init__(self, module_name):
        super().__init__()
        self._module_name = module_name
        self._widget = None
        self.isEntered = False
        self.setLayout(qt.QVBoxLayout())
        self.setMRMLScene(slicer.mrmlScene)

    def self(self):
        return self._widget

    def reload(self):
        """Make a new Python widget from the module as it is imported now; a module in sight is not entered again."""
        module = sys.modules[self._module_name]
        self._widget = getattr(module, f"{self._module_name}Widget")(self)
        setattr(slicer.modules, f"{self._module_name}Widget", self._widget)
        self._widget.setup()

    def enter(self):
        """What happens when the user switches to the module."""
        self.isEntered = True
        self._widget.enter()

    def exit(self):
        """What happens when the user switches to another module."""
        self.isEntered = False
        self._widget.exit()
