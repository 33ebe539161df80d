"""Surfaces are closed, keep the volume, and lie where the structure lies, in whatever way the scan is stored."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from dicom_scans import OBLIQUE, STRAIGHT, every_way, tilted

from HSAMSegmentLib.errors import OutputError, RequestError
from HSAMSegmentLib.export import surface_files
from HSAMSegmentLib.export.formats import save_segmentation
from HSAMSegmentLib.export.source_images import Origin
from HSAMSegmentLib.export.surface_files import surfaces_of
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.labels.grids import resample_array
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.terminology import label_set_of

trimesh = pytest.importorskip("trimesh", reason="surfaces need trimesh: pip install trimesh")
pytest.importorskip("skimage", reason="surfaces need scikit-image: pip install scikit-image")

GRID = Geometry(size=(60, 50, 40), spacing_mm=(2.0, 2.0, 3.0), origin_mm=(-60.0, -50.0, -20.0))
NAMES = {3: "right kidney", 7: "left & <odd> kidney"}


def ball(grid: Geometry, center_lps, radius_mm: float) -> np.ndarray:
    i, j, k = np.meshgrid(*(np.arange(length) for length in grid.size), indexing="ij")
    indices = np.stack([i, j, k, np.ones_like(i)], -1).astype(float)
    apart = np.linalg.norm((indices @ grid.ijk_to_lps.T)[..., :3] - center_lps, axis=-1)
    return (apart <= radius_mm).transpose(2, 1, 0)


def two_balls() -> Segmentation:
    """A ball on the patient's right (x below 0 in LPS), a smaller one on the left."""
    array = np.zeros(GRID.shape, np.uint8)
    array[ball(GRID, (-30.0, 0.0, 40.0), 20.0)] = 3
    array[ball(GRID, (30.0, 10.0, 50.0), 12.0)] = 7
    return Segmentation(array, GRID, label_set_of(NAMES))


def test_they_are_closed_and_keep_the_volume():
    labels = two_balls()
    for surface in surfaces_of(labels):
        voxels_ml = np.count_nonzero(labels.array == surface.label.value) * GRID.voxel_volume_ml
        _, often = np.unique(np.sort(surface.mesh.edges, axis=1), axis=0, return_counts=True)
        assert set(often) == {2}
        assert surface.mesh.is_winding_consistent
        assert surface.mesh.volume / 1000 == pytest.approx(voxels_ml, rel=0.01)
        assert surface.mesh.volume / 1000 == pytest.approx(
            4.19e-3 * (20 if surface.label.value == 3 else 12) ** 3, rel=0.02
        )


def test_the_area_of_a_ball_is_nearly_that_of_the_formula():
    first = next(surfaces_of(two_balls()))
    assert first.mesh.area == pytest.approx(4 * np.pi * 20.0**2, rel=0.04)


def test_touching_structures_a_hole_and_the_border_of_the_scan_are_closed_too():
    array = np.zeros(STRAIGHT.shape, np.uint8)
    array[:, :11], array[:, 11:] = 3, 7
    array[3:6, 3:8, 5:12] = 0
    array[0, 0, 0], array[1, 1, 1] = 0, 0
    for surface in surfaces_of(Segmentation(array, STRAIGHT, label_set_of(NAMES))):
        assert surface.mesh.is_watertight
        assert surface.mesh.volume > 0


@pytest.mark.parametrize("way", range(48))
def test_right_is_right_in_all_48_orientations(way):
    grid = every_way(GRID)[way]
    labels = two_balls()
    moved = Segmentation(resample_array(labels.array, GRID, grid), grid, labels.labels)
    right, left = surfaces_of(moved)
    np.testing.assert_allclose(right.mesh.center_mass, (-30.0, 0.0, 40.0), atol=0.3)
    np.testing.assert_allclose(left.mesh.center_mass, (30.0, 10.0, 50.0), atol=0.3)
    assert right.mesh.volume > 0
    assert left.mesh.volume > 0


@pytest.mark.parametrize("grid", [OBLIQUE, tilted()], ids=["oblique", "tilted"])
def test_oblique_and_tilted_slices_keep_place_and_volume(grid):
    array = np.zeros(grid.shape, np.uint8)
    array[2:7, 5:16, 6:20] = 3
    (surface,) = surfaces_of(Segmentation(array, grid, label_set_of(NAMES)))
    center = (grid.ijk_to_lps @ [12.5, 10.0, 4.0, 1.0])[:3]
    np.testing.assert_allclose(surface.mesh.center_mass, center, atol=0.05)
    assert surface.mesh.volume / 1000 == pytest.approx(5 * 11 * 14 * grid.voxel_volume_ml, rel=0.05)


@pytest.mark.parametrize("suffix", [".stl", ".obj", ".vtp"])
def test_the_files_hold_all_structures_in_lps_and_say_so(tmp_path, suffix):
    path = tmp_path / f"organs{suffix}"
    save_segmentation(two_balls(), path, Origin())
    points = read_points(path)
    np.testing.assert_allclose(points.min(axis=0), (-50.0, -20.0, 20.0), atol=1.6)
    np.testing.assert_allclose(points.max(axis=0), (42.0, 22.0, 62.0), atol=1.6)
    assert b"SPACE=LPS" in path.read_bytes()[:200] or b'Name="SPACE"' in path.read_bytes()[:400]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def read_points(path: Path) -> np.ndarray:
    if path.suffix == ".vtp":
        vtk = pytest.importorskip("vtk", reason="VTK reads .vtp files here: pip install vtk")
        reader = vtk.vtkXMLPolyDataReader()
        reader.SetFileName(str(path))
        reader.Update()
        read = reader.GetOutput()
        assert read.GetFieldData().GetAbstractArray("SPACE").GetValue(0) == "LPS"
        names = read.GetFieldData().GetAbstractArray("LabelNames")
        assert [names.GetValue(index) for index in range(2)] == list(NAMES.values())
        assert read.GetCellData().GetArray("Label").GetRange() == (3.0, 7.0)
        assert read.GetCellData().GetArray("Color").GetNumberOfComponents() == 3
        assert read.GetNumberOfPolys() > 1000
        return np.array([read.GetPoint(index) for index in range(read.GetNumberOfPoints())])
    mesh = trimesh.load(path, force="mesh")
    assert mesh.is_watertight
    return np.asarray(mesh.vertices)


def test_objects_of_an_obj_file_have_the_names_of_the_structures(tmp_path):
    save_segmentation(two_balls(), tmp_path / "organs.obj", Origin())
    names = re.findall(r"^o (.*)$", (tmp_path / "organs.obj").read_text(), re.MULTILINE)
    assert names == ["right_kidney", "left_&_<odd>_kidney"]


@pytest.mark.host
@pytest.mark.parametrize("suffix", [".stl", ".obj", ".vtp"])
def test_slicer_puts_the_right_kidney_to_the_right(tmp_path, suffix):
    slicer = pytest.importorskip("slicer", reason="slicer-core reads the files as Slicer does")
    labels = two_balls()
    right = Segmentation(np.where(labels.array == 3, 3, 0).astype(np.uint8), GRID, labels.labels)
    save_segmentation(right, tmp_path / f"right{suffix}", Origin())
    scene = slicer.vtkMRMLScene()
    model, storage = slicer.vtkMRMLModelNode(), slicer.vtkMRMLModelStorageNode()
    scene.AddNode(model)
    scene.AddNode(storage)
    storage.SetFileName(str(tmp_path / f"right{suffix}"))
    assert storage.ReadData(model)
    bounds = model.GetPolyData().GetBounds()  # RAS: the patient's right is above 0
    np.testing.assert_allclose(bounds, (10.0, 50.0, -20.0, 20.0, 20.0, 60.0), atol=1.6)


def test_nothing_found_is_an_empty_file(tmp_path):
    empty = Segmentation(np.zeros(GRID.shape, np.uint8), GRID, label_set_of(NAMES))
    for suffix in (".stl", ".obj", ".vtp"):
        save_segmentation(empty, tmp_path / f"none{suffix}", Origin())
        assert (tmp_path / f"none{suffix}").stat().st_size > 20


def test_an_existing_file_stays_and_a_missing_package_is_named(tmp_path, monkeypatch):
    path = tmp_path / "organs.stl"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        save_segmentation(two_balls(), path, Origin())
    assert path.read_text() == "mine"
    monkeypatch.setattr(surface_files, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"pip install 'hsamsegment\[surfaces\]'"):
        save_segmentation(two_balls(), tmp_path / "other.stl", Origin())


def test_a_name_that_does_not_fit_the_format_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r'"a\.nii" is not a name for a file of the format stl; end it with \.stl'):
        save_segmentation(two_balls(), tmp_path / "a.nii", Origin(), format_name="stl")
    with pytest.raises(OutputError, match=r"end the name with one of \.seg\.nrrd, .*\.rtstruct\.dcm, \.dcm, \.stl"):
        save_segmentation(two_balls(), tmp_path / "a.txt", Origin())
    with pytest.raises(RequestError, match="There is no format 'mesh'; choose one of seg"):
        save_segmentation(two_balls(), tmp_path / "a.stl", Origin(), format_name="mesh")
