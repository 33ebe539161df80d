"""Volumes as plain data: an array with its geometry, its location for a job, and a check for CT."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry

_AIR_HU = (-1100.0, -850.0)
_SOFT_TISSUE_HU = (-200.0, 300.0)
_LOWEST_CT_HU = -4100.0
_HIGHEST_CT_HU = 32767.0
_LEAST_AIR, _LEAST_SOFT_TISSUE = 0.01, 0.02

_NO_GEOMETRY = "A scan given as an array needs its geometry."


@dataclass(frozen=True)
class Volume:
    """A scalar volume.

    Attributes:
        array: finite intensities, shape (k, j, i).
        geometry: its grid.
        name: file or node name, for reports.
        modality: "CT", "MR" or "" if unknown.
        source: the file or folder it was read from, or None.
        notes: sentences on what reading had to repair ("12 voxels were not finite and became 0").
        series: ID of the DICOM series it was read from (its instance UID, with "/2" for a second volume of it), or "".
        dicom_files: its DICOM files in slice order (one file may hold all slices); none for other formats.
    """

    array: np.ndarray
    geometry: Geometry
    name: str = "volume"
    modality: str = ""
    source: Path | None = None
    notes: tuple[str, ...] = ()
    series: str = ""
    dicom_files: tuple[Path, ...] = ()


def guess_modality(array: np.ndarray) -> str:
    """ "CT" if the values can only be Hounsfield units, else "".

    That is, air (around -1000) and soft tissue (around 0) both fill a good part of the volume, and no value is outside
    the range of CT. There is no reliable sign of MR: a scan without negative values may be CT with an offset.

    Args:
        array: finite values, shape (k, j, i).
    """
    if array.size == 0 or array.min() < _LOWEST_CT_HU or array.max() > _HIGHEST_CT_HU:
        return ""
    air = _part_between(array, _AIR_HU)
    return "CT" if air > _LEAST_AIR and _part_between(array, _SOFT_TISSUE_HU) > _LEAST_SOFT_TISSUE else ""


def _part_between(array: np.ndarray, bounds: tuple[float, float]) -> float:
    """Fraction of the voxels within bounds, counted slice by slice to save memory."""
    low, high = bounds
    return sum(int(np.count_nonzero((part >= low) & (part <= high))) for part in array) / array.size


@dataclass(frozen=True)
class VolumeInput:
    """Location of a scan: a file or DICOM folder, or an array file with its geometry (a volume of a scene).

    Attributes:
        path: file or DICOM folder; empty if the array is given.
        array_file: `.npy` file of the array (k, j, i), read memory-mapped.
        geometry: grid of the array.
        name: for reports.
        modality: "CT", "MR" or "" if unknown.
        series: DICOM series of a folder to read, or the instance UID of the series that an array came from; else "".
    """

    path: str = ""
    array_file: str = ""
    geometry: Geometry | None = None
    name: str = "volume"
    modality: str = ""
    series: str = ""

    def __post_init__(self) -> None:
        if bool(self.path) == bool(self.array_file):
            raise RequestError("A job needs its scan either as a file or as an array, and got both or none.")
        if self.array_file and self.geometry is None:
            raise RequestError(_NO_GEOMETRY)

    @property
    def required_geometry(self) -> Geometry:
        """The grid of the array; RequestError for a scan in a file."""
        if self.geometry is None:
            raise RequestError(_NO_GEOMETRY)
        return self.geometry
