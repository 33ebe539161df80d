"""What a job works on, as plain data: scans in files, or in arrays that a scene handed over."""

from __future__ import annotations

from dataclasses import dataclass

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry

_NO_GEOMETRY = "A scan given as an array needs its geometry."


@dataclass(frozen=True)
class VolumeInput:
    """Where the scan is: in a file or DICOM folder, or in an array file with its geometry (a volume of a scene).

    Attributes:
        path: file or DICOM folder, empty if the array is given.
        array_file: `.npy` file of the array (k, j, i), read memory-mapped.
        geometry: grid of the array.
        name: for reports.
        modality: "CT", "MR" or "" when nothing tells.
        series: which DICOM series of a folder to read, or the instance UID of the one an array came from; else "".
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
