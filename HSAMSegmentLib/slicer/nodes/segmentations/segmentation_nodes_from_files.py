"""Segmentations of the scene from files: those of Slicer as it loads them, label maps with the names beside them."""

from __future__ import annotations

from pathlib import Path

import slicer
from slicer.i18n import tr as _

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.slicer.nodes.segmentations.segments import add_labels, shared_labelmap

OWN_SUFFIXES = (".seg.nrrd", ".seg.nhdr")


def load_segmentation_file(path: str | Path, name: str = ""):
    """Add the segmentation of a file to the scene; a label map becomes a segmentation, too.

    Args:
        path: a .seg.nrrd file of Slicer, or a label map in any image format.
        name: for the node, by default that of the file.

    Returns:
        The segmentation node, on the grid of the file; what reading noted is in its description.

    Raises:
        VolumeError: if there is no such file, or if it is not a segmentation.
    """
    from HSAMSegmentLib.labels.segmentation_files import (
        read_segmentation,  # needs SimpleITK, which a panel opens without
    )

    path = Path(path)
    if path.name.lower().endswith(OWN_SUFFIXES):
        return _load_own(path, name or path.name[: -len(OWN_SUFFIXES[0])])
    read = read_segmentation(path)
    node = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLSegmentationNode", slicer.mrmlScene.GenerateUniqueName(name or read.name)
    )
    node.CreateDefaultDisplayNodes()
    node.SetDescription(" ".join(read.notes))
    size = read.geometry.size
    image = shared_labelmap(read.array, (0, size[0], 0, size[1], 0, size[2]), read.geometry)
    add_labels(node, read.labels, image)
    converter = slicer.vtkSegmentationConverter
    grid = converter.SerializeImageGeometry(image)
    node.GetSegmentation().SetConversionParameter(converter.GetReferenceImageGeometryParameterName(), grid)
    return node


def _load_own(path: Path, name: str):
    from HSAMSegmentLib.io.image_files import read_image

    read_image(path)  # raises for a damaged file, which would end the whole application in Slicer's own reader
    try:
        return slicer.util.loadSegmentation(str(path), {"name": name})
    except RuntimeError as error:
        sentence = _("{path} cannot be read as a segmentation. Look into Slicer's error log.")
        raise VolumeError(sentence.format(path=path)) from error
