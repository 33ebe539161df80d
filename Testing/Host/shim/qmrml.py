"""Stand-ins for qMRML's widgets, bound to the real scene."""

from __future__ import annotations

import qt
import slicer
from PySide6.QtCore import Property, Signal


def _descendants(widget):
    for child in widget.children():
        yield child
        yield from _descendants(child)


class qMRMLWidget(qt.QWidget):
    """A widget that hands its scene on to what is inside, as the connections in a .ui file do in Slicer."""

    mrmlSceneChanged = Signal(object)

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._scene = None

    def setMRMLScene(self, scene):
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)
        for child in _descendants(self):
            if hasattr(child, "setMRMLScene") and not isinstance(child, qMRMLWidget):
                child.setMRMLScene(scene)

    def mrmlScene(self):
        return self._scene


class qMRMLNodeComboBox(qt.QComboBox):
    """Lists the nodes of some classes; one is the current one."""

    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    nodeAddedByUser = Signal(object)
    nodeActivated = Signal(object)
    _SCENE_EVENTS = ("NodeAddedEvent", "NodeRemovedEvent", "EndCloseEvent", "EndImportEvent", "EndBatchProcessEvent")
    _ADD = "__add__"
    FLAGS = {  # noqa: RUF012 - the defaults, copied by every instance
        "noneEnabled": False,
        "addEnabled": True,
        "removeEnabled": True,
        "renameEnabled": False,
        "editEnabled": False,
        "showHidden": False,
        "showChildNodeTypes": True,
        "selectNodeUponCreation": True,
    }

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._scene, self._observations = None, []
        self._types, self._attributes = [], {}
        self._current = None
        self._base_name, self._none_text = "", "None"
        self._flags = dict(self.FLAGS)
        self.activated.connect(self._on_activated)

    def setMRMLScene(self, scene):
        for observed, tag in self._observations:
            observed.RemoveObserver(tag)
        self._scene, self._observations = scene, []
        if scene is not None:
            for event in self._SCENE_EVENTS:
                tag = scene.AddObserver(getattr(scene, event), lambda *_: self._refresh())
                self._observations.append((scene, tag))
        self._refresh()

    def mrmlScene(self):
        return self._scene

    def _accepts(self, node):
        if node is None or (node.GetHideFromEditors() and not self._flags["showHidden"]):
            return False
        derived = self._flags["showChildNodeTypes"]
        right_type = any(node.IsA(name) if derived else node.GetClassName() == name for name in self._types)
        return right_type and all(node.GetAttribute(key) == value for key, value in self._attributes.items())

    def _nodes(self):
        if self._scene is None:
            return []
        nodes = (self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes()))
        return [node for node in nodes if self._accepts(node)]

    def _refresh(self):
        nodes = self._nodes()
        self.clear()
        if self._flags["noneEnabled"]:
            self.addItem(self._none_text, "")
        for node in nodes:
            self.addItem(node.GetName(), node.GetID())
        if self._flags["addEnabled"]:
            self.addItem(f"Create new {self._type_text()}", self._ADD)
        current = self._current if self._current in nodes else None
        if current is None and nodes and not self._flags["noneEnabled"]:
            current = nodes[0]
        self._select(current)

    def _type_text(self):
        return self._types[0].replace("vtkMRML", "").replace("Node", "") if self._types else "node"

    def _select(self, node):
        changed = node is not self._current
        self._current = node
        identifier = node.GetID() if node is not None else ""
        qt.QComboBox.setCurrentIndex(self, self.findData(identifier))
        if changed:
            self.currentNodeChanged.emit(node)
            self.currentNodeIDChanged.emit(identifier)

    def _on_activated(self, index):
        identifier = self.itemData(index)
        if identifier == self._ADD:
            self.addNode()
        else:
            self._select(self._scene.GetNodeByID(identifier) if identifier else None)

    def addNode(self, class_name=""):
        name = self._scene.GenerateUniqueName(self._base_name or self._type_text())
        node = self._scene.AddNewNodeByClass(class_name or self._types[0], name)
        self._select(node)
        self.nodeAddedByUser.emit(node)
        return node

    def currentNode(self):
        return self._current

    def setCurrentNode(self, node):
        self._select(self._scene.GetNodeByID(node) if isinstance(node, str) else node)

    def setCurrentNodeID(self, identifier):
        self._select(self._scene.GetNodeByID(identifier) if identifier else None)

    def nodeCount(self):
        return len(self._nodes())

    def addAttribute(self, node_type, key, value=None):
        self._attributes[key] = value
        self._refresh()

    def _get_current_id(self):
        return self._current.GetID() if self._current is not None else ""

    def _get_types(self):
        return self._types

    def setNodeTypes(self, types):
        self._types = list(types)
        self._refresh()

    def _get_base_name(self):
        return self._base_name

    def setBaseName(self, name):
        self._base_name = name

    def _get_none_text(self):
        return self._none_text

    def setNoneDisplay(self, text):
        self._none_text = text
        self._refresh()

    currentNodeID = Property(str, _get_current_id, setCurrentNodeID)
    nodeTypes = Property("QStringList", _get_types, setNodeTypes)
    baseName = Property(str, _get_base_name, setBaseName)
    noneDisplay = Property(str, _get_none_text, setNoneDisplay)


def _flag_property(name):
    def read(self):
        return self._flags[name]

    def write(self, value):
        self._flags[name] = bool(value)
        self._refresh()

    return Property(bool, read, write)


for _name in qMRMLNodeComboBox.FLAGS:
    setattr(qMRMLNodeComboBox, _name, _flag_property(_name))


class qMRMLSegmentationShow3DButton(qt.QPushButton):
    """A button that shows and hides the closed surfaces of a segmentation."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.setText("Show 3D")
        self.setCheckable(True)
        self._segmentation = None
        self.clicked.connect(self._on_clicked)

    def setSegmentationNode(self, node):
        self._segmentation = node
        self.setEnabled(node is not None)
        self.setChecked(node is not None and node.GetSegmentation().ContainsRepresentation("Closed surface"))

    def segmentationNode(self):
        return self._segmentation

    def setMRMLScene(self, scene):
        """The button needs only its segmentation."""

    def _on_clicked(self, *_):
        if self._segmentation is None:
            return
        if self.isChecked():
            self._segmentation.CreateClosedSurfaceRepresentation()
        else:
            self._segmentation.RemoveClosedSurfaceRepresentation()


def _publish():
    for item in list(globals().values()):
        if isinstance(item, type) and item.__name__.startswith("qMRML"):
            qt.register_custom_widget(item)
            setattr(slicer, item.__name__, item)
    slicer.qSlicerWidget = qMRMLWidget


_publish()
