"""Checklists: of organs, and of the scans of the scene with the reason why one cannot be segmented."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import qt
import slicer
from slicer.i18n import tr as _

from HSAMSegmentLib.slicer.nodes.segment_session import is_in_scene
from HSAMSegmentLib.slicer.nodes.volumes import volume_problem
from HSAMSegmentLib.slicer.panels.widgets.theme import tip_of

_ROW_PIXELS = 20


class CheckList:
    """A list of names with check marks, and buttons for all and none; as high as its rows, within bounds."""

    fewest, most = 2, 8

    def __init__(self, widget, all_button, none_button, on_change: Callable[[], None]) -> None:
        self._list, self._on_change = widget, on_change
        self._filling = False
        widget.connect("itemChanged(QListWidgetItem*)", self._on_item)
        all_button.connect("clicked()", lambda: self._set_all(qt.Qt.Checked))
        none_button.connect("clicked()", lambda: self._set_all(qt.Qt.Unchecked))

    def show(self, names: Sequence[str], left_out: Sequence[str] = ()) -> None:
        """List these names, all checked but those that are left out."""
        self._fill((name, "", name not in left_out) for name in names)

    @property
    def checked(self) -> tuple[str, ...]:
        """The checked names."""
        return tuple(item.text() for item in self._items() if item.checkState() == qt.Qt.Checked)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The other names."""
        return tuple(item.text() for item in self._items() if item.checkState() != qt.Qt.Checked)

    def _fill(self, rows: Iterable[tuple[str, str, bool | None]]) -> None:
        """Replace the rows: text, tooltip, and whether it is checked; None if it cannot be."""
        self._filling = True
        self._list.clear()
        for text, tip, is_checked in rows:
            item = qt.QListWidgetItem(text)
            item.setSizeHint(qt.QSize(0, _ROW_PIXELS))
            if tip:
                item.setToolTip(tip)
            item.setFlags(qt.Qt.NoItemFlags)
            if is_checked is not None:
                item.setFlags(qt.Qt.ItemIsUserCheckable | qt.Qt.ItemIsEnabled)
                item.setCheckState(qt.Qt.Checked if is_checked else qt.Qt.Unchecked)
            self._list.addItem(item)
        self._list.setFixedHeight(_ROW_PIXELS * min(max(self._list.count, self.fewest), self.most) + 6)
        self._filling = False

    def _items(self) -> list:
        return [self._list.item(row) for row in range(self._list.count)]

    def _set_all(self, state) -> None:
        self._filling = True
        for item in self._items():
            item.setCheckState(state)
        self._filling = False
        self._on_change()

    def _on_item(self, _item) -> None:
        if not self._filling:
            self._on_change()


class ScanList(CheckList):
    """All volumes of the scene but label maps and hidden ones, checked unless the user unchecked them."""

    fewest, most = 3, 10

    def __init__(self, widget, all_button, none_button, on_change: Callable[[], None]) -> None:
        super().__init__(widget, all_button, none_button, on_change)
        self._nodes: list = []
        self._unchecked: set[str] = set()
        widget.setTextElideMode(qt.Qt.ElideMiddle)  # scans of one patient differ at the end of their names

    def show(self) -> None:
        """List what is in the scene now."""
        self._nodes = [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if _is_listed(node)]
        self._fill(map(self._row, self._nodes))

    @property
    def count(self) -> int:
        """How many scans there are."""
        return len(self._nodes)

    @property
    def checked(self) -> list:
        """The checked volume nodes."""
        return [node for node, item in zip(self._nodes, self._items()) if item.checkState() == qt.Qt.Checked]

    def forget(self) -> None:
        """The scene is closed."""
        self._nodes, self._unchecked = [], set()
        self._list.clear()

    def _row(self, node) -> tuple[str, str, bool | None]:
        name, problem = node.GetName(), volume_problem(node)
        tip = tip_of((name, problem))
        if problem:
            return _("{name} (cannot be segmented)").format(name=name), tip, None
        return name, tip, node.GetID() not in self._unchecked

    def _set_all(self, state) -> None:
        self._unchecked = set() if state == qt.Qt.Checked else {node.GetID() for node in self._nodes}
        self.show()
        self._on_change()

    def _on_item(self, item) -> None:
        if not self._filling:
            self._unchecked = {node.GetID() for node in self._nodes} - {node.GetID() for node in self.checked}
        super()._on_item(item)


def _is_listed(node) -> bool:
    return is_in_scene(node) and not node.GetHideFromEditors() and not node.IsA("vtkMRMLLabelMapVolumeNode")
