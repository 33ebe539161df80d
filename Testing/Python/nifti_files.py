"""NIfTI files made by hand: what ITK does not write itself."""

from __future__ import annotations

import struct

import numpy as np


def nifti_bytes(array, *, order="<", slope=1.0, intercept=0.0, sform=None, code=16, sizes=None):
    """The content of a NIfTI-1 file with these voxels [k, j, i] of 1 mm."""
    sizes = sizes or array.shape[::-1]
    header = bytearray(352)
    struct.pack_into(order + "i", header, 0, 348)
    struct.pack_into(order + "8h", header, 40, len(sizes), *sizes, *[1] * (7 - len(sizes)))
    struct.pack_into(order + "2h", header, 70, code, array.dtype.itemsize * 8)
    struct.pack_into(order + "8f", header, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into(order + "3f", header, 108, 352, slope, intercept)
    if sform is not None:
        struct.pack_into(order + "2h", header, 252, 0, 1)
        struct.pack_into(order + "12f", header, 280, *np.asarray(sform)[:3].ravel())
    header[344:348] = b"n+1\0"
    return bytes(header) + array.astype(array.dtype.newbyteorder(order)).tobytes()
