"""Write surface files: binary STL, OBJ with a named object per structure, VTK polygonal data with names and colors.

All structures of a segmentation go into one file. STL has no names, so its structures cannot be distinguished; segment
one structure to get it alone. Every file declares LPS mm coordinates in the words that Slicer looks for.

Surfaces are closed: marching cubes from scikit-image, smoothed by trimesh without shrinking.
Coordinates are LPS, as in DICOM, ITK and Slicer's model files: x increases toward left, y toward posterior, z toward
superior.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from xml.sax.saxutils import quoteattr

import numpy as np

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.labels.label_set import Label
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.runtime.atomic_files import atomic_output

if TYPE_CHECKING:
    import trimesh


SURFACES_HINT = "Surfaces need scikit-image and trimesh; install them with: pip install 'hsamsegment[surfaces]'"
SMOOTHING_STEPS = 20
_LAMBDA, _NU = 0.5, 0.53

SURFACE_SUFFIXES = (".stl", ".obj", ".vtp")

_STL_HEADER = b"HSAMSegment; millimeters; SPACE=LPS"


@dataclass(frozen=True)
class Surface:
    """The surface of one structure.

    Attributes:
        label: name and color of the structure.
        mesh: closed triangle mesh in LPS mm, with normals pointing outward.
    """

    label: Label
    mesh: trimesh.Trimesh


def surfaces_of(segmentation: Segmentation, *, smoothing_steps: int = SMOOTHING_STEPS) -> Iterator[Surface]:
    """Compute the surface of each structure with voxels, in the order of the labels.

    Args:
        segmentation: the labels.
        smoothing_steps: iterations of Taubin's smoothing (SIGGRAPH 1995), which preserves the volume; 0 for the bare
            voxel boundary, with cut corners.

    Raises:
        RequestError: if scikit-image or trimesh is not installed.
    """
    require_surface_libraries()
    from scipy import ndimage

    boxes = ndimage.find_objects(segmentation.array)
    for label in segmentation.labels:
        box = boxes[label.value - 1] if label.value <= len(boxes) else None
        if box is not None:
            mask = segmentation.array[box] == label.value
            start = np.array([part.start for part in reversed(box)], dtype=float)
            yield Surface(label, _mesh(mask, start, segmentation.geometry.ijk_to_lps, smoothing_steps))


def require_surface_libraries() -> None:
    """Raise a RequestError with installation instructions if scikit-image or trimesh is missing."""
    if any(find_spec(name) is None for name in ("skimage", "trimesh")):
        raise RequestError(SURFACES_HINT)


def _mesh(mask: np.ndarray, start: np.ndarray, ijk_to_lps: np.ndarray, steps: int) -> trimesh.Trimesh:
    """The surface of a mask (k, j, i) whose first voxel has the indices `start` (i, j, k)."""
    import trimesh
    from skimage.measure import marching_cubes

    vertices, faces, _, _ = marching_cubes(np.pad(mask, 1).astype(np.float32), 0.5)
    indices = vertices[:, ::-1] - 1.0 + start
    points = indices @ ijk_to_lps[:3, :3].T + ijk_to_lps[:3, 3]
    mesh = trimesh.Trimesh(points, faces, process=False)
    if steps:
        trimesh.smoothing.filter_taubin(mesh, lamb=_LAMBDA, nu=_NU, iterations=steps)
    if mesh.volume < 0:
        mesh.invert()
    return mesh


def write_surfaces(segmentation: Segmentation, path: Path, *, overwrite: bool = False) -> None:
    """Write the closed surface of each structure that was found.

    Args:
        segmentation: the labels.
        path: .stl, .obj or .vtp file; written atomically.
        overwrite: replace an existing file.

    Raises:
        RequestError: if scikit-image or trimesh is not installed.
        OutputError: if the file exists or cannot be written.
    """
    surfaces = list(surfaces_of(segmentation))
    write = {".stl": _write_stl, ".obj": _write_obj, ".vtp": _write_vtp}[path.suffix.lower()]
    with atomic_output(path, overwrite=overwrite) as stream:
        write(stream, surfaces)


def _write_stl(stream: BinaryIO, surfaces: Sequence[Surface]) -> None:
    layout = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    stream.write(_STL_HEADER.ljust(80))
    stream.write(np.uint32(sum(len(surface.mesh.faces) for surface in surfaces)).astype("<u4").tobytes())
    for surface in surfaces:
        records = np.zeros(len(surface.mesh.faces), dtype=layout)
        records["normal"] = surface.mesh.face_normals
        records["corners"] = surface.mesh.triangles
        stream.write(records.tobytes())


def _write_obj(stream: BinaryIO, surfaces: Sequence[Surface]) -> None:
    stream.write(b"# HSAMSegment; millimeters\n# SPACE=LPS\n")
    first = 1
    for surface in surfaces:
        mesh, name = surface.mesh, re.sub(r"\s+", "_", surface.label.name.strip())
        stream.write(f"o {name}\n".encode())
        np.savetxt(stream, mesh.vertices, fmt="v %.4f %.4f %.4f")
        np.savetxt(stream, mesh.faces + first, fmt="f %d %d %d")
        first += len(mesh.vertices)


def _write_vtp(stream: BinaryIO, surfaces: Sequence[Surface]) -> None:
    points = np.concatenate([np.zeros((0, 3)), *(surface.mesh.vertices for surface in surfaces)])
    starts = np.cumsum([0, *(len(surface.mesh.vertices) for surface in surfaces)])
    faces = [np.asarray(surface.mesh.faces) + start for surface, start in zip(surfaces, starts)]
    cells = np.concatenate([np.zeros((0, 3), dtype=int), *faces])
    counts = [len(part) for part in faces]
    values = np.repeat([surface.label.value for surface in surfaces], counts)
    colors = np.repeat(np.array([surface.label.color for surface in surfaces]).reshape(-1, 3), counts, axis=0)
    known = [surface.label for surface in surfaces]
    parts = [
        '<?xml version="1.0"?>',
        '<VTKFile type="PolyData" version="1.0" byte_order="LittleEndian" header_type="UInt64">',
        "<PolyData>",
        "<FieldData>",
        _texts("SPACE", ["LPS"]),
        _texts("LabelNames", [label.name for label in known]),
        _array("LabelValues", np.array([label.value for label in known], dtype="<i4"), tuples=len(known)),
        "</FieldData>",
        f'<Piece NumberOfPoints="{len(points)}" NumberOfVerts="0" NumberOfLines="0" NumberOfStrips="0" '
        f'NumberOfPolys="{len(cells)}">',
        '<CellData Scalars="Label">',
        _array("Label", values.astype("<i4")),
        _array("Color", np.rint(255 * colors).astype("<u1")),
        "</CellData>",
        f"<Points>{_array('Points', points.astype('<f4'))}</Points>",
        "<Polys>",
        _array("connectivity", cells.astype("<i8").ravel()),
        _array("offsets", 3 * np.arange(1, len(cells) + 1, dtype="<i8")),
        "</Polys>",
        "</Piece>",
        "</PolyData>",
        "</VTKFile>",
    ]
    stream.write("\n".join(parts).encode() + b"\n")


def _array(name: str, values: np.ndarray, tuples: int | None = None) -> str:
    """An array as base64, preceded by its length in bytes (64 bits)."""
    kind = {"i4": "Int32", "i8": "Int64", "u1": "UInt8", "f4": "Float32"}[values.dtype.str[1:]]
    components = f' NumberOfComponents="{values.shape[1]}"' if values.ndim == 2 else ""
    count = "" if tuples is None else f' NumberOfTuples="{tuples}"'
    data = np.ascontiguousarray(values).tobytes()
    coded = base64.b64encode(len(data).to_bytes(8, "little") + data).decode()
    return f'<DataArray type="{kind}" Name={quoteattr(name)}{components}{count} format="binary">{coded}</DataArray>'


def _texts(name: str, texts: Sequence[str]) -> str:
    """A string array: the bytes of each string as numbers, 0-terminated."""
    codes = " ".join(str(byte) for text in texts for byte in (*text.encode(), 0))
    return f'<Array type="String" Name={quoteattr(name)} NumberOfTuples="{len(texts)}" format="ascii">{codes}</Array>'
