"""The checklist of scans of the scene; those that cannot be segmented are named with their reason."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from HSAMSegmentLib.slicer.nodes.segment_session import is_in_scene
from HSAMSegmentLib.slicer.nodes.volumes import volume_problem
from HSAMSegmentLib.slicer.panels.widgets.theme import tip_of

_ROW_PIXELS = 20
_MOST_ROWS = 10


class ScanList:
    """All volumes of the scene but label maps and hidden ones, checked unless the user unchecked them."""

    def __init__(self, list_widget, all_button, none_button, on_change: Callable[[], None]) -> None:
        self._list = list_widget
        self._on_change = on_change
        self._nodes: list = []
        self._unchecked: set[str] = set()
        self._filling = False
        list_widget.setTextElideMode(qt.Qt.ElideMiddle)  # scans of one patient differ at the end of their names
        list_widget.connect("itemChanged(QListWidgetItem*)", self._on_item)
        all_button.connect("clicked()", self._check_all)
        none_button.connect("clicked()", self._check_none)

    def show(self) -> None:
        """List what is in the scene now."""
        self._filling = True
        self._list.clear()
        self._nodes = [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if _is_listed(node)]
        for node in self._nodes:
            self._list.addItem(self._item(node))
        self._list.setFixedHeight(_ROW_PIXELS * min(max(len(self._nodes), 3), _MOST_ROWS) + 6)
        self._filling = False

    @property
    def count(self) -> int:
        """How many scans there are."""
        return len(self._nodes)

    @property
    def checked(self) -> list:
        """The checked volume nodes."""
        rows = range(len(self._nodes))
        return [self._nodes[row] for row in rows if self._list.item(row).checkState() == qt.Qt.Checked]

    def forget(self) -> None:
        """The scene is closed."""
        self._nodes, self._unchecked = [], set()
        self._list.clear()

    def _item(self, node):
        problem = volume_problem(node)
        item = qt.QListWidgetItem(node.GetName())
        item.setSizeHint(qt.QSize(0, _ROW_PIXELS))
        item.setToolTip(tip_of((node.GetName(), problem)))
        if problem:
            item.setText(_("{name} (cannot be segmented)").format(name=node.GetName()))
            item.setFlags(qt.Qt.NoItemFlags)
            return item
        item.setFlags(qt.Qt.ItemIsUserCheckable | qt.Qt.ItemIsEnabled)
        item.setCheckState(qt.Qt.Unchecked if node.GetID() in self._unchecked else qt.Qt.Checked)
        return item

    def _check_all(self) -> None:
        self._unchecked.clear()
        self.show()
        self._on_change()

    def _check_none(self) -> None:
        self._unchecked.update(node.GetID() for node in self._nodes)
        self.show()
        self._on_change()

    def _on_item(self, item) -> None:
        if self._filling:
            return
        chosen = {node.GetID() for node in self.checked}
        self._unchecked = {node.GetID() for node in self._nodes} - chosen
        self._on_change()


def _is_listed(node) -> bool:
    return is_in_scene(node) and not node.GetHideFromEditors() and not node.IsA("vtkMRMLLabelMapVolumeNode")
