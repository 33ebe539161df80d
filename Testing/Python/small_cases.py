"""Small labeled cases cut out of the real scans, for tests of fine-tuning."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.terminology import label_set_of
from HSAMSegmentLib.training.data.cases import Case, make_case

ABDOMEN_NAMES = {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}


def small_volume(data_folder: Path, name: str = "chaos_t2_02") -> tuple[Volume, np.ndarray]:
    """Fourteen slices of an abdomen at a quarter of the resolution, with liver and right kidney."""
    folder = data_folder / "chaos_t2"
    volume = read_volume(folder / "images" / f"{name}.nii.gz")
    labels = read_volume(folder / "labels" / f"{name}.nii.gz").array.astype(np.uint8)
    box = (slice(8, 22), slice(60, 188, 2), slice(20, 148, 2))
    geometry = Geometry(size=(64, 64, 14), spacing_mm=(2.5, 2.5, 7.7))
    array = np.ascontiguousarray(volume.array[box])
    return Volume(array, geometry, name, modality="MR"), np.ascontiguousarray(np.where(labels > 2, 0, labels)[box])


def small_case(data_folder: Path, name: str = "chaos_t2_02") -> Case:
    """A case made of `small_volume`."""
    volume, labels = small_volume(data_folder, name)
    return make_case(volume, segmentation_of(labels, volume.geometry))


def thin_case(data_folder: Path, name: str = "la_06SR5RBREL16DQ6M8LWS") -> Case:
    """A left atrium, every third voxel along each axis: slices as thin as its pixels, 1.875 mm, about 30 of 47 x 61."""
    folder = data_folder / "la_lge"
    volume, labels = (read_volume(folder / part / f"{name}.nii.gz") for part in ("images", "labels"))
    array, drawn = (np.ascontiguousarray(item.array[::3, ::3, ::3]) for item in (volume, labels))
    geometry = Geometry(size=array.shape[::-1], spacing_mm=(1.875, 1.875, 1.875))
    names = {1: "left atrium"}
    return make_case(
        Volume(array, geometry, name, modality="MR"), segmentation_of(drawn.astype(np.uint8), geometry, names)
    )


def segmentation_of(labels: np.ndarray, geometry: Geometry, names: dict[int, str] | None = None) -> Segmentation:
    """Labels with the names of the abdomen, of those that occur."""
    names = ABDOMEN_NAMES if names is None else names
    present = {value: name for value, name in names.items() if (labels == value).any()}
    return Segmentation(labels, geometry, label_set_of(present), "drawn labels")
