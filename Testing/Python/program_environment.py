"""What tests of the program `hsam-segment` share: its environment, label maps to give it, and its one line of error."""

from __future__ import annotations

import os

import numpy as np
from conftest import REPOSITORY

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.terminology import label_set_of


def environment(home):
    return {
        **os.environ,
        "HSAMSEGMENT_HOME": str(home),
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "2",
        "COLUMNS": "100",
    }


def write_labels(path, array, names=None, geometry=None):
    """A segmentation with names as .seg.nrrd, or a plain label map without."""
    import SimpleITK as sitk

    from HSAMSegmentLib.images.sitk_images import image_of
    from HSAMSegmentLib.labels.segmentation_files import write_segmentation

    array = np.asarray(array, dtype=np.uint8)
    geometry = geometry or Geometry(size=array.shape[::-1], spacing_mm=(1.0, 2.0, 3.0))
    if names is None:
        sitk.WriteImage(image_of(array, geometry), str(path))
    else:
        write_segmentation(Segmentation(array, geometry, label_set_of(names)), path)
    return path


def two_organs():
    array = np.zeros((6, 10, 12), dtype=np.uint8)
    array[1:5, 2:6, 2:6] = 1
    array[2:4, 7:9, 7:11] = 2
    return array


def one_line(done):
    """The one line on stderr that an error is."""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("hsam-segment: ")
    return lines[0]
