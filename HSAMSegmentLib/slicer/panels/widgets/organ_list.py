"""The checklist of organs."""

from __future__ import annotations

from collections.abc import Callable

import qt

_ROW_PIXELS = 20
_MOST_ROWS = 8


class OrganList:
    """A list with a check mark per organ, and buttons for all and none."""

    def __init__(self, list_widget, all_button, none_button, on_change: Callable[[], None]) -> None:
        self._list = list_widget
        self._on_change = on_change
        self._filling = False
        list_widget.connect("itemChanged(QListWidgetItem*)", self._on_item)
        all_button.connect("clicked()", self.check_all)
        none_button.connect("clicked()", self.check_none)

    def show(self, organs: tuple[str, ...], left_out: tuple[str, ...] = ()) -> None:
        """List these organs, all checked but those that are left out."""
        self._filling = True
        self._list.clear()
        for name in organs:
            item = qt.QListWidgetItem(name)
            item.setFlags(qt.Qt.ItemIsUserCheckable | qt.Qt.ItemIsEnabled)
            item.setCheckState(qt.Qt.Unchecked if name in left_out else qt.Qt.Checked)
            item.setSizeHint(qt.QSize(0, _ROW_PIXELS))
            self._list.addItem(item)
        self._list.setFixedHeight(_ROW_PIXELS * min(max(len(organs), 2), _MOST_ROWS) + 6)
        self._filling = False

    @property
    def checked(self) -> tuple[str, ...]:
        """Names of the checked organs."""
        return tuple(item.text() for item in self._items() if item.checkState() == qt.Qt.Checked)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the others."""
        return tuple(item.text() for item in self._items() if item.checkState() != qt.Qt.Checked)

    def check_all(self) -> None:
        """Check every organ."""
        self._set_all(qt.Qt.Checked)

    def check_none(self) -> None:
        """Uncheck every organ."""
        self._set_all(qt.Qt.Unchecked)

    def _items(self) -> list:
        return [self._list.item(row) for row in range(self._list.count)]

    def _set_all(self, state) -> None:
        self._filling = True
        for item in self._items():
            item.setCheckState(state)
        self._filling = False
        self._on_change()

    def _on_item(self, item) -> None:
        if not self._filling:
            self._on_change()
