"""Stand-in for Slicer's I/O manager: which logic reads or writes which file."""

from __future__ import annotations

import os
from pathlib import Path

import vtk

_TYPES = {
    "SegmentationFile": (".seg.nrrd", ".seg.nhdr"),
    "SceneFile": (".mrb", ".mrml"),
    "ModelFile": (".vtk", ".vtp", ".stl", ".obj", ".ply"),
    "TableFile": (".csv", ".tsv"),
}
_WRITERS = {
    "vtkMRMLSegmentationNode": "SegmentationFile",
    "vtkMRMLModelNode": "ModelFile",
    "vtkMRMLTableNode": "TableFile",
}
# vtkSlicerVolumesLogic's options of AddArchetypeVolume
_LABELMAP, _CENTER, _SINGLE_FILE, _DISCARD_ORIENTATION = 1, 2, 16, 8


class IOManager:
    """Loads and saves nodes by file type."""

    def __init__(self, scene_host):
        self._host = scene_host

    def fileType(self, filename):
        name = str(filename).lower()
        found = [kind for kind, endings in _TYPES.items() if name.endswith(endings)]
        return found[0] if found else "VolumeFile"

    def fileWriterFileType(self, node):
        default = "VolumeFile" if node.IsA("vtkMRMLVolumeNode") else "NodeFile"
        return _WRITERS.get(node.GetClassName(), default)

    def loadNodes(self, file_type, properties, collection, messages=None):
        filename = str(properties["fileName"])
        if not os.path.exists(filename):
            if messages is not None:
                messages.AddMessage(vtk.vtkCommand.ErrorEvent, f"There is no file {filename}")
            return False
        if file_type == "SceneFile":
            return self.load_scene(filename, bool(properties.get("clear", False)))
        name = properties.get("name") or Path(filename).name.split(".")[0]
        node = self._load_node(file_type, filename, name, properties)
        if node is not None:
            collection.AddItem(node)
        return node is not None

    def _load_node(self, file_type, filename, name, properties):
        logics = self._host.logics
        if file_type == "SegmentationFile":
            return logics["segmentations"].LoadSegmentationFromFile(filename, True, name)
        if file_type == "ModelFile":
            return logics["models"].AddModel(filename)
        if file_type == "TableFile":
            return logics["tables"].AddTable(filename, name)
        flags = {
            "labelmap": _LABELMAP,
            "center": _CENTER,
            "singleFile": _SINGLE_FILE,
            "discardOrientation": _DISCARD_ORIENTATION,
        }
        options = sum(flag for key, flag in flags.items() if properties.get(key))
        node = logics["volumes"].AddArchetypeVolume(filename, name, options)
        if node is not None and not node.IsA("vtkMRMLLabelMapVolumeNode") and properties.get("show", True):
            self._show(node)
        return node

    def _show(self, volume):
        """Bring a loaded volume into the slice views, as the application does unless it is told not to."""
        logic = self._host.application_logic
        logic.GetSelectionNode().SetActiveVolumeID(volume.GetID())
        logic.PropagateVolumeSelection(0)  # the views keep their place

    def saveNodes(self, file_type, properties, messages=None):
        filename = str(properties["fileName"])
        if file_type == "SceneFile":
            return self.save_scene(filename)
        node = self._host.scene.GetNodeByID(properties["nodeID"])
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode()
        storage = node.GetStorageNode()
        storage.SetFileName(filename)
        return bool(storage.WriteData(node))

    def load_scene(self, filename, clear):
        scene = self._host.scene
        if clear:
            scene.Clear(0)
        if filename.endswith(".mrb"):
            return bool(scene.ReadFromMRB(filename, clear))
        scene.SetURL(filename)
        return bool(scene.Connect() if clear else scene.Import())

    def save_scene(self, filename):
        scene = self._host.scene
        scene.SetURL(filename)
        scene.SetRootDirectory(os.path.dirname(filename))
        return bool(scene.Commit()) if filename.endswith(".mrml") else bool(scene.WriteToMRB(filename))
