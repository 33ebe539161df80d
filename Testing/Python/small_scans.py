"""Small scans on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.sitk_images import image_of
from HSAMSegmentLib.images.volume import Volume


def bright_boxes(name: str = "scene") -> Volume:
    """Bright boxes on the patient's right and left, a gray one in front; slices 4 mm apart."""
    geometry = Geometry(size=(60, 50, 12), spacing_mm=(1.0, 1.5, 4.0), origin_mm=(-30.0, 10.0, 5.0))
    array = np.full(geometry.shape, 10, np.int16)
    array[3:9, 20:40, 8:20] = 200
    array[4:8, 20:40, 40:55] = 200
    array[8, 20:28, 8:20] = 10
    array[2:10, 4:16, 16:44] = 90
    array[:, 0, 0] = 0
    return Volume(array, geometry, name=name)


def write_scan(path: Path, volume: Volume | None = None) -> Path:
    """Write a scan; the suffix is the format."""
    volume = volume or bright_boxes()
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image_of(volume.array, volume.geometry), str(path))
    return path


def write_dicom_series(folder: Path, volume: Volume | None = None, number: int = 1, description: str = "T2") -> Path:
    """Write a scan as a DICOM series of MR images, one file per slice."""
    volume = volume or bright_boxes()
    folder.mkdir(parents=True, exist_ok=True)
    image = image_of(volume.array, volume.geometry)
    direction = image.GetDirection()
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    study = "1.2.826.0.1.3680043.8.498.1"
    for k in range(image.GetSize()[2]):
        part = image[:, :, k]
        tags = {
            "0008|0060": "MR",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"{study}.{number}.{k + 1}",
            "0008|103e": description,
            "0020|000d": study,
            "0020|000e": f"{study}.{number}",
            "0020|0011": str(number),
            "0020|0013": str(k + 1),
            "0020|0032": "\\".join(f"{v:.6f}" for v in image.TransformIndexToPhysicalPoint((0, 0, k))),
            "0020|0037": "\\".join(f"{direction[n]:.6f}" for n in (0, 3, 6, 1, 4, 7)),
            "0018|0050": str(image.GetSpacing()[2]),
        }
        for tag, value in tags.items():
            part.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{number}_{k:03d}.dcm"))
        writer.Execute(part)
    return folder
