"""The module's self test: the same code in Slicer and in the headless host."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import slicer

from HSAMSegmentLib.mrml.segmentation_bridge import create_segmentation
from HSAMSegmentLib.mrml.volume_bridge import volume_geometry
from HSAMSegmentLib.volumes.phantom import abdomen_phantom


def run_self_tests(say: Callable[[str], object]) -> None:
    """Run all self tests; AssertionError says what failed."""
    say("The geometry of a scan")
    _check_geometry()


def _check_geometry() -> None:
    matrix = np.diag([-1.5, -1.5, 3.0, 1.0])
    volume = slicer.util.addVolumeFromArray(np.zeros((3, 4, 5), np.int16), matrix, "Self test")
    assert np.allclose(volume_geometry(volume).ijk_to_ras, matrix), "the geometry of a volume node is read wrongly"
    node = create_segmentation(volume, "Self test organs")
    assert node.GetSegmentation().GetNumberOfSegments() == 0


def add_phantom(name: str):
    """Add the synthetic abdomen to the scene as a scan."""
    volume, _ = abdomen_phantom()
    node = slicer.util.addVolumeFromArray(volume.array, volume.geometry.ijk_to_ras, name)
    node.SetAttribute("DICOM.Modality", volume.modality)
    return node
