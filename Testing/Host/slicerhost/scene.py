"""The real MRML scene with the logics of Slicer's core modules, wired as the application does it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import slicer
import vtk

from slicerhost.terminologies import write_terminologies

# attribute of slicer.modules: (module name, class of the logic)
LOGICS = {
    "colors": ("Colors", "vtkMRMLColorLogic"),
    "volumes": ("Volumes", "vtkSlicerVolumesLogic"),
    "terminologies": ("Terminologies", "vtkSlicerTerminologiesModuleLogic"),
    "segmentations": ("Segmentations", "vtkSlicerSegmentationsModuleLogic"),
    "subjecthierarchy": ("SubjectHierarchy", "vtkSlicerSubjectHierarchyModuleLogic"),
    "models": ("Models", "vtkSlicerModelsLogic"),
    "markups": ("Markups", "vtkSlicerMarkupsLogic"),
    "tables": ("Tables", "vtkSlicerTablesLogic"),
    "plots": ("Plots", "vtkSlicerPlotsLogic"),
    "sequences": ("Sequences", "vtkSlicerSequencesLogic"),
    "cropvolume": ("CropVolume", "vtkSlicerCropVolumeLogic"),
}


class SceneHost:
    """Owns the scene, the application logic and the module logics."""

    def __init__(self):
        messages = vtk.vtkOutputWindow()
        messages.SetDisplayModeToAlwaysStdErr()
        vtk.vtkOutputWindow.SetInstance(messages)
        self.temporary_folder = tempfile.TemporaryDirectory(prefix="slicerhost-")
        write_terminologies(Path(self.temporary_folder.name))
        self.scene = slicer.vtkMRMLScene()
        self.application_logic = self._make_application_logic()
        self.logics = {attribute: self._make_logic(*names) for attribute, names in LOGICS.items()}
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)
        self._connect_bundle_reading()

    def _make_application_logic(self):
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        self.scene.AddNode(crosshair)
        logic = slicer.vtkSlicerApplicationLogic()
        logic.SetMRMLScene(self.scene)
        logic.GetColorLogic().SetMRMLScene(self.scene)
        logic.GetColorLogic().AddDefaultColorNodes()
        logic.SetTemporaryPath(self.temporary_folder.name)
        self._slice_logics, self._view_logics = vtk.vtkCollection(), vtk.vtkCollection()
        logic.SetSliceLogics(self._slice_logics)
        logic.SetViewLogics(self._view_logics)
        for factory in ("vtkMRMLThreeDViewDisplayableManagerFactory", "vtkMRMLSliceViewDisplayableManagerFactory"):
            getattr(slicer, factory).GetInstance().SetMRMLApplicationLogic(logic)
        return logic

    def _make_logic(self, name, class_name):
        logic = getattr(slicer, class_name)()
        if hasattr(logic, "SetModuleShareDirectory"):
            logic.SetModuleShareDirectory(self.temporary_folder.name)
        logic.SetMRMLScene(self.scene)
        logic.SetMRMLApplicationLogic(self.application_logic)
        self.application_logic.SetModuleLogic(name, logic)
        return logic

    def _connect_bundle_reading(self):
        """What `.mrb` files need."""
        self._remote = slicer.vtkMRMLRemoteIOLogic()
        self._remote.SetMRMLScene(self.scene)
        self._remote.SetMRMLApplicationLogic(self.application_logic)
        cache = Path(self.temporary_folder.name) / "cache"
        cache.mkdir()
        (cache / ".slicer-cache").touch()  # without it the cache manager warns that it will not clean up
        self._remote.GetCacheManager().SetRemoteCacheDirectory(str(cache))
        self._data_io = slicer.vtkDataIOManagerLogic()
        self._data_io.SetMRMLScene(self.scene)
        self._data_io.SetMRMLApplicationLogic(self.application_logic)
        self._data_io.SetAndObserveDataIOManager(self._remote.GetDataIOManager())
        self._remote.AddDataIOToScene()
