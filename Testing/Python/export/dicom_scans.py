"""DICOM scans of any orientation with structures that tell every axis and direction apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from dicom_files import write_frames, write_series
from grids_of_tests import array_and_geometry, oblique_geometry, reorientations

from HSAMSegmentLib.export.source_images import Origin
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.sitk_images import image_of
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.labels.grids import resample_array
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.terminology import label_set_of

SERIES = "1.2.826.0.1.3680043.8.498.77"
SPACING = (0.7, 1.1, 5.3)
NAMES = {2: "right kidney", 5: "liver", 9: "Gefäß 肝"}
MODEL = {"model_id": "abdomen-ct", "model_title": "Abdomen CT"}
STRAIGHT = Geometry(size=(26, 22, 9), spacing_mm=SPACING, origin_mm=(-12.0, 8.0, -40.0))
OBLIQUE = oblique_geometry(size=(26, 22, 9))


def structures(shape=STRAIGHT.shape) -> np.ndarray:
    """A kidney in two parts, a liver with a hole and an island in it, and a vessel of one voxel and a diagonal."""
    array = np.zeros(shape, dtype=np.uint8)
    array[1:4, 2:9, 3:8], array[2, 12:15, 20:24] = 2, 2
    array[3:8, 10:20, 4:18] = 5
    array[4:7, 12:17, 7:13] = 0
    array[5, 14, 9] = 5
    array[4:7, 13, 16] = 0
    array[7, 2, 2] = 9
    for step in range(4):
        array[6, 3 + step, 18 + step] = 9
    return array


def tilted() -> Geometry:
    """Slices that are shifted against each other, as a tilted gantry makes them."""
    direction = np.eye(3)
    direction[:, 2] = [0.0, np.sin(np.radians(18)), np.cos(np.radians(18))]
    return Geometry(STRAIGHT.size, SPACING, STRAIGHT.origin_mm, tuple(direction.ravel().tolist()))


def positions_of(geometry: Geometry) -> list[np.ndarray]:
    """LPS mm of the first pixel of each slice."""
    return [(geometry.ijk_to_lps @ [0, 0, k, 1])[:3] for k in range(geometry.size[2])]


def written_scan(folder: Path, geometry: Geometry, *, frames: bool = False) -> Volume:
    """A DICOM scan on a grid, as a series or as one file of several frames, and read again."""
    folder.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(1).integers(-100, 200, geometry.shape).astype(np.int16)
    measures = {
        "PixelSpacing": [geometry.spacing_mm[1], geometry.spacing_mm[0]],
        "SliceThickness": geometry.spacing_mm[2],
    }
    if not frames:
        write_series(folder, array, geometry, uid=SERIES, SeriesNumber=3, **measures)
        return read_volume(folder)
    path = write_frames(folder / "frames.dcm", array, positions_of(geometry), geometry.direction_matrix)
    data = pydicom.dcmread(path)
    shared = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    shared.PixelSpacing, shared.SliceThickness = measures["PixelSpacing"], measures["SliceThickness"]
    data.save_as(path)
    return read_volume(path)


def labeled(volume: Volume, array: np.ndarray, geometry: Geometry) -> tuple[Segmentation, Origin]:
    """Structures of one grid on the grid of a scan that shows the same place, and where they come from."""
    moved = resample_array(array, geometry, volume.geometry)
    labels = Segmentation(moved, volume.geometry, label_set_of(NAMES))
    return labels, Origin(volume.dicom_files, **MODEL)


def every_way(geometry: Geometry) -> list[Geometry]:
    """The grids of the 48 ways to store a scan."""
    empty = image_of(np.zeros(geometry.shape, np.uint8), geometry)
    return [array_and_geometry(image)[1] for image in reorientations(empty)]


def values_by_name(found: Segmentation, geometry: Geometry) -> np.ndarray:
    """Labels on a grid, with the values that the names have in `NAMES`."""
    array = resample_array(found.array, found.geometry, geometry)
    result = np.zeros_like(array)
    by_name = {name: value for value, name in NAMES.items()}
    for label in found.labels:
        result[array == label.value] = by_name[label.name]
    return result
