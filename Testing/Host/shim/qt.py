"""Stand-in for PythonQt's `qt` module: PySide6's classes with properties that are read and written without parentheses.

Every name that begins with Q of QtCore, QtGui, QtWidgets and QtUiTools is here, as in Slicer. Signals of one's own are
left out on purpose: defining them in Python crashes Slicer.
"""

from __future__ import annotations

import qt_connections
import qt_properties
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

_MODULES = (QtCore, QtGui, QtWidgets, QtUiTools)

for _module in _MODULES:
    for _name in dir(_module):
        if _name.startswith("Q"):
            globals().setdefault(_name, getattr(_module, _name))

Qt = QtCore.Qt

qt_properties.install(_MODULES)
qt_connections.install()

QtCore.QObject.name = property(lambda self: self.objectName, lambda self, value: self.setObjectName(value))
QtCore.QObject.className = lambda self: self.metaObject().className()
QtCore.QObject.delete = lambda self: self.deleteLater()
for _class in (QtWidgets.QDialog, QtWidgets.QMenu, QtCore.QEventLoop):
    _class.exec_ = lambda self, *arguments: self.exec(*arguments)

_custom_widgets: dict[str, type] = {}


def register_custom_widget(widget_class: type) -> None:
    """Make a class known to every later `QUiLoader`, by its name."""
    _custom_widgets[widget_class.__name__] = widget_class


class QUiLoader(QtUiTools.QUiLoader):
    """A loader that knows the stand-ins for ctk's and qMRML's widgets."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        for widget_class in _custom_widgets.values():
            self.registerCustomWidget(widget_class)
