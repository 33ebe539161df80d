"""A volume as plain data: an array and where it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from HSAMSegmentLib.images.geometry import Geometry


@dataclass(frozen=True)
class Volume:
    """A scalar volume.

    Attributes:
        array: finite intensities, shape (k, j, i).
        geometry: where they are.
        name: file or node name, for reports.
        modality: "CT", "MR" or "" when nothing tells.
        source: the file or folder it was read from, or None.
        notes: sentences on what reading had to mend ("12 voxels were not finite and became 0").
        series: id of the DICOM series it was read from (its instance UID, with "/2" for a second volume of it), or "".
        dicom_files: its DICOM files in the order of the slices (one file may hold all slices); none for other formats.
    """

    array: np.ndarray
    geometry: Geometry
    name: str = "volume"
    modality: str = ""
    source: Path | None = None
    notes: tuple[str, ...] = ()
    series: str = ""
    dicom_files: tuple[Path, ...] = ()
