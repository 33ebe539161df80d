"""Closed surfaces of labels, computed in the worker: knows vtk, not slicer.

The worker calls `write_surfaces` through a hook, since jobs may not import vtk. The steps and their settings are those
of Slicer's own conversion from a binary labelmap, so that surfaces look the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.workflows.segment.segment_request import SegmentOutcome

SMOOTHING_FACTOR = 0.5


def write_surfaces(outcome: SegmentOutcome, folder: Path, cancel: CancelToken) -> dict[int, str]:
    """Write a `.vtp` file in RAS mm per organ that was found.

    Returns:
        Label value to file.

    Raises:
        CancelledError: between two organs.
    """
    labels = outcome.read_labels()
    files = {}
    for organ in outcome.found:
        cancel.raise_if_cancelled()
        value = organ.label.value
        surface = closed_surface(labels == value, outcome.box, outcome.geometry.ijk_to_ras)
        files[value] = str(folder / f"surface-{value}.vtp")
        _write(surface, files[value])
    return files


def closed_surface(mask: np.ndarray, box: tuple[int, ...], ijk_to_ras: np.ndarray) -> vtk.vtkPolyData:
    """The smoothed surface around a mask (k, j, i) whose first voxel is (box[0], box[2], box[4])."""
    edges = vtk.vtkDiscreteFlyingEdges3D()
    edges.SetInputData(_padded_image(mask, box))
    edges.ComputeGradientsOff()
    edges.ComputeNormalsOff()
    edges.SetValue(0, 1)
    smooth = vtk.vtkWindowedSincPolyDataFilter()
    smooth.SetInputConnection(edges.GetOutputPort())
    smooth.SetNumberOfIterations(int(20 + SMOOTHING_FACTOR * 40))
    smooth.SetPassBand(pow(10.0, -4.0 * SMOOTHING_FACTOR))
    smooth.BoundarySmoothingOff()
    smooth.FeatureEdgeSmoothingOff()
    smooth.NonManifoldSmoothingOn()
    smooth.NormalizeCoordinatesOn()
    placed = _to_ras(smooth, ijk_to_ras)  # a name keeps the filter alive until it is connected
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputConnection(placed.GetOutputPort())
    normals.ConsistencyOn()
    normals.SplittingOff()
    normals.Update()
    return normals.GetOutput()


def _padded_image(mask: np.ndarray, box: tuple[int, ...]) -> vtk.vtkImageData:
    """The mask as an image in voxel coordinates, with a rim of background so that the surface is closed."""
    padded = np.pad(mask, 1).astype(np.uint8)
    image = vtk.vtkImageData()
    image.SetDimensions(*padded.shape[::-1])
    image.SetOrigin(box[0] - 1, box[2] - 1, box[4] - 1)
    image.GetPointData().SetScalars(numpy_to_vtk(padded.ravel(), deep=True, array_type=vtk.VTK_UNSIGNED_CHAR))
    return image


def _to_ras(source: vtk.vtkAlgorithm, ijk_to_ras: np.ndarray) -> vtk.vtkAlgorithm:
    """Move a surface from voxel to RAS coordinates; a left-handed grid turns its faces inside out, which is undone."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(ijk_to_ras, dtype=float).ravel())
    transform = vtk.vtkTransform()
    transform.SetMatrix(matrix)
    moved = vtk.vtkTransformPolyDataFilter()
    moved.SetTransform(transform)
    moved.SetInputConnection(source.GetOutputPort())
    if matrix.Determinant() > 0:
        return moved
    turned = vtk.vtkReverseSense()
    turned.ReverseCellsOn()
    turned.SetInputConnection(moved.GetOutputPort())
    return turned


def _write(surface: vtk.vtkPolyData, path: str) -> None:
    writer = vtk.vtkXMLPolyDataWriter()
    writer.SetFileName(path)
    writer.SetInputData(surface)
    writer.SetDataModeToAppended()
    writer.EncodeAppendedDataOff()
    writer.SetCompressorTypeToNone()
    if not writer.Write():
        raise OSError(f"The surface could not be written to {path}.")


def read_surface(path: str) -> vtk.vtkPolyData:
    """Read what `write_surfaces` wrote."""
    reader = vtk.vtkXMLPolyDataReader()
    reader.SetFileName(path)
    reader.Update()
    return reader.GetOutput()
