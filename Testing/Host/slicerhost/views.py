"""Real slice and 3D views of slicer-core, rendered offscreen and saved as pictures."""

from __future__ import annotations

import slicer
import vtk
from vtk.util import numpy_support

_SLICE_MANAGERS = (
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
)
_THREE_D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLOrientationMarkerDisplayableManager",
)


class View:
    """A render window without a screen."""

    def __init__(self, size):
        self.size = size
        self.renderer = vtk.vtkRenderer()
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.ShowWindowOff()
        self.window.SetSize(*size)
        self.window.AddRenderer(self.renderer)
        self._interactor = vtk.vtkRenderWindowInteractor()
        self._interactor.SetRenderWindow(self.window)
        self._interactor.Initialize()

    def _displayable_managers(self, factory, names, application_logic):
        factory.SetMRMLApplicationLogic(application_logic)
        for name in names:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        group = slicer.vtkMRMLDisplayableManagerGroup()
        group.SetRenderer(self.renderer)
        group.Initialize(factory, self.renderer)
        return group

    def grab(self, path=None):
        """Render; returns uint8 [rows, columns, 3] and saves it as a PNG if a path is given."""
        self.window.Render()
        grabber = vtk.vtkWindowToImageFilter()
        grabber.SetInput(self.window)
        grabber.SetInputBufferTypeToRGB()
        grabber.ReadFrontBufferOff()
        grabber.Update()
        image = grabber.GetOutput()
        if path is not None:
            writer = vtk.vtkPNGWriter()
            writer.SetFileName(str(path))
            writer.SetInputData(image)
            writer.Write()
        columns, rows, _ = image.GetDimensions()
        return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(rows, columns, 3)[::-1].copy()


class SliceView(View):
    """One slice viewer."""

    def __init__(self, scene_host, name="Red", orientation="Axial", size=(512, 512)):
        super().__init__(size)
        self._prepare_layers()
        logic = scene_host.application_logic
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        self._group = self._displayable_managers(factory, _SLICE_MANAGERS, logic)
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(logic)
        logic.GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(scene_host.scene)
        self.node = self.logic.AddSliceNode(name)
        self.node.SetOrientation(orientation)
        self._group.SetMRMLDisplayableNode(self.node)
        self.logic.ResizeSliceNode(*size)

    def _prepare_layers(self):
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        self._overlay = vtk.vtkRenderer()
        self._overlay.SetLayer(1)
        self._overlay.GetActiveCamera().ParallelProjectionOn()
        self.window.SetNumberOfLayers(2)
        self.window.AddRenderer(self._overlay)
        self.window.SetAlphaBitPlanes(1)
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        actor = vtk.vtkActor2D()
        actor.SetMapper(self._mapper)
        actor.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddViewProp(actor)

    def show(self, volume, offset_mm=None, along_volume=False):
        """Show a volume, optionally at an offset, optionally cut along the volume's own axes."""
        self.logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
        if along_volume:
            self.logic.RotateSliceToLowestVolumeAxes(False)
        self.logic.FitSliceToBackground()
        self.logic.SnapSliceOffsetToIJK()
        if offset_mm is not None:
            self.logic.SetSliceOffset(offset_mm)

    def grab(self, path=None):
        self._mapper.SetInputConnection(self.logic.GetImageDataConnection())
        return super().grab(path)


class ThreeDView(View):
    """One 3D viewer."""

    def __init__(self, scene_host, name="1", size=(512, 512)):
        super().__init__(size)
        logic = scene_host.application_logic
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        self._group = self._displayable_managers(factory, _THREE_D_MANAGERS, logic)
        self.logic = slicer.vtkMRMLViewLogic()
        self.logic.SetMRMLApplicationLogic(logic)
        logic.GetViewLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(scene_host.scene)
        self.node = self.logic.AddViewNode(name)
        self._group.SetMRMLDisplayableNode(self.node)
        self.node.SetBoxVisible(0)
        self.node.SetAxisLabelsVisible(0)

    def fit(self, direction="Anterior"):
        """Look at everything from one side."""
        manager = self._group.GetDisplayableManagerByClassName("vtkMRMLCameraDisplayableManager")
        manager.GetCameraNode().RotateTo(getattr(slicer.vtkMRMLCameraNode, direction))
        self.renderer.ResetCamera()
        self.renderer.ResetCameraClippingRange()
