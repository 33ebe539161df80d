"""Stand-ins for the widgets of CTK that panels use: same names, properties and signals, plainer looks."""

from __future__ import annotations

import qt
from PySide6.QtCore import Property, Signal

_TITLE_PIXELS = 22


class ctkCollapsibleButton(qt.QWidget):
    """A titled section that folds."""

    contentsCollapsed = Signal(bool)

    def __init__(self, *arguments):
        super().__init__(*[item for item in arguments if not isinstance(item, str)])
        self._collapsed = False
        self._hidden_by_collapsing = []
        self._title = qt.QToolButton(self)
        self._title.setAutoRaise(True)
        self._title.setToolButtonStyle(qt.Qt.ToolButtonTextBesideIcon)
        self._title.setStyleSheet("QToolButton { font-weight: bold; border: none; }")
        self._title.clicked.connect(lambda *_: self.setCollapsed(not self._collapsed))
        self.setContentsMargins(0, _TITLE_PIXELS, 0, 0)
        self._sync()

    def _sync(self):
        self._title.setArrowType(qt.Qt.RightArrow if self._collapsed else qt.Qt.DownArrow)
        self._title.adjustSize()
        if self._collapsed:
            self._hide_content()
        else:
            self._show_content()
        self.setMaximumHeight(_TITLE_PIXELS if self._collapsed else 16777215)

    def _hide_content(self):
        """Hide what is inside; what code hid itself stays hidden when the section is opened again."""
        for child in self.children():
            if isinstance(child, qt.QWidget) and child is not self._title and not child.isHidden():
                self._hidden_by_collapsing.append(child)
                child.setVisible(False)

    def _show_content(self):
        hidden, self._hidden_by_collapsing = self._hidden_by_collapsing, []
        for child in hidden:
            child.setVisible(True)

    def minimumSizeHint(self):
        """A title is never cut, as in the application: a long one makes the dock wide."""
        return super().minimumSizeHint().expandedTo(self._title.sizeHint())

    def childEvent(self, event):
        super().childEvent(event)
        if event.added() and self._collapsed:
            qt.QTimer.singleShot(0, self._sync)

    def _get_collapsed(self):
        return self._collapsed

    def setCollapsed(self, value):
        changed = bool(value) != self._collapsed
        self._collapsed = bool(value)
        self._sync()
        if changed:
            self.contentsCollapsed.emit(self._collapsed)

    def _get_text(self):
        return self._title.text

    def setText(self, text):
        self._title.setText(text)
        self._sync()

    collapsed = Property(bool, _get_collapsed, setCollapsed)
    text = Property(str, _get_text, setText)


class ctkPathLineEdit(qt.QWidget):
    """A line for a path with a button beside it."""

    currentPathChanged = Signal(str)
    Files, Dirs, Readable, Writable, Executable = 1, 2, 4, 8, 16

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._edit, browse = qt.QLineEdit(), qt.QToolButton()
        browse.setText("...")
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._edit)
        layout.addWidget(browse)
        self._edit.textChanged.connect(self.currentPathChanged)
        self._filters, self._name_filters, self._setting_key = 5, [], ""

    def _get_path(self):
        return self._edit.text

    def setCurrentPath(self, path):
        self._edit.setText(str(path))

    def addCurrentPathToHistory(self):
        """The stand-in keeps no history."""

    def _get_filters(self):
        return self._filters

    def _set_filters(self, value):
        self._filters = int(value)

    def _get_name_filters(self):
        return self._name_filters

    def _set_name_filters(self, value):
        self._name_filters = list(value)

    def _get_setting_key(self):
        return self._setting_key

    def _set_setting_key(self, value):
        self._setting_key = value

    currentPath = Property(str, _get_path, setCurrentPath)
    filters = Property(int, _get_filters, _set_filters)
    nameFilters = Property("QStringList", _get_name_filters, _set_name_filters)
    settingKey = Property(str, _get_setting_key, _set_setting_key)


class ctkDoubleSpinBox(qt.QDoubleSpinBox):
    """A spin box for numbers with decimals."""


class ctkSliderWidget(qt.QWidget):
    """A slider with a spin box; the box holds the value."""

    valueChanged = Signal(float)
    _STEPS = 1000

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._slider, self._box = qt.QSlider(qt.Qt.Horizontal), qt.QDoubleSpinBox()
        self._slider.setRange(0, self._STEPS)
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._box)
        self._box.valueChanged.connect(self._on_box)
        self._slider.sliderMoved.connect(self._on_slider)

    def _on_box(self, value):
        span = self._box.maximum - self._box.minimum
        self._slider.setValue(round((value - self._box.minimum) / span * self._STEPS) if span else 0)
        self.valueChanged.emit(value)

    def _on_slider(self, step):
        span = self._box.maximum - self._box.minimum
        self._box.setValue(self._box.minimum + span * step / self._STEPS)


def _box_property(kind, name):
    def read(self):
        return getattr(self._box, name)

    def write(self, value):
        setattr(self._box, name, value)

    return Property(kind, read, write)


for _kind, _name in (
    (float, "value"),
    (float, "minimum"),
    (float, "maximum"),
    (float, "singleStep"),
    (int, "decimals"),
    (str, "suffix"),
):
    setattr(ctkSliderWidget, _name, _box_property(_kind, _name))


class ctkFittedTextBrowser(qt.QTextBrowser):
    """A text browser."""


class ctkMessageBox(qt.QMessageBox):
    """A message box."""


class ctkComboBox(qt.QComboBox):
    """A combo box."""


for _class in list(globals().values()):
    if isinstance(_class, type) and _class.__name__.startswith("ctk"):
        qt.register_custom_widget(_class)
