"""Slices in a canonical orientation: the same stack for every flipped or permuted copy of a scan, and its inverse.

The stack is a view of the volume's own voxels (axes permuted and reversed, nothing resampled). It depends on the
directions of the axes in the patient, not on the order in which the file stores them. Three choices make it unique:

1. The slice axis (`SliceRule.plane`).
2. The side from which slices are viewed. Slices ascend along the normal that points toward superior, posterior and
   right: inferior to superior for axial, anterior to posterior for coronal, left to right for sagittal slices. In LPS
   this is the sign of `_NORMAL_REFERENCE`. Common planes, and the short axis of the heart (whose normal lies between
   all three), are far from where the sign changes.
3. The in-plane rotation, one of four. Columns follow the in-plane axis closest to a target that changes smoothly with
   the normal: patient left if the normal is superior, and the more it turns posterior and right, whatever makes rows
   inferior and columns posterior. This gives columns left and rows posterior for axial slices, left and inferior for
   coronal, posterior and inferior for sagittal ones, and a blend of these for oblique ones.

Columns, rows and slices always form a right-handed system, so no view is a mirror image of another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.runtime.serialization import triple

PLANES = ("acquisition", "axial", "coronal", "sagittal")

# An axis is the acquisition axis if its spacing is this many times the next largest spacing.
_CLEARLY_LARGER = 1.2
_LPS_AXIS_OF_PLANE = {"axial": 2, "coronal": 1, "sagittal": 0}
_NORMAL_REFERENCE = np.array([-1.0, 1.5, 2.0])
_LEFT, _BACK, _FEET = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, -1.0])
_LEANING_WEIGHT, _LEANING_POWER = 4.0, 3
_TIE = 1e-6


@dataclass(frozen=True)
class SliceFrame:
    """The placement of a stack of slices in its volume.

    Attributes:
        shape: shape (k, j, i) of the volume's array.
        axes: array axis of the volume (0 is k, 2 is i) of the slices, rows and columns of the stack.
        reversed_axes: whether slices, rows and columns are reversed along their array axis.
        spacing_mm: spacing of slices, rows and columns.
        directions: unit LPS vectors of increasing slice, row and column index.
    """

    shape: tuple[int, int, int]
    axes: tuple[int, int, int]
    reversed_axes: tuple[bool, bool, bool]
    spacing_mm: tuple[float, float, float]
    directions: tuple[tuple[float, float, float], ...]

    @property
    def pixel_spacing_mm(self) -> tuple[float, float]:
        """Spacing of rows and of columns."""
        return self.spacing_mm[1:]

    @property
    def slice_spacing_mm(self) -> float:
        """Distance between slice centers."""
        return self.spacing_mm[0]

    @property
    def stack_shape(self) -> tuple[int, int, int]:
        """Shape (slices, rows, columns) of the stack."""
        return triple(self.shape[axis] for axis in self.axes)

    @property
    def field_of_view_mm(self) -> tuple[float, float]:
        """Extent of a slice along rows and columns (height, width)."""
        _, rows, columns = self.stack_shape
        return (rows * self.spacing_mm[1], columns * self.spacing_mm[2])

    def to_stack(self, array: np.ndarray) -> np.ndarray:
        """View an array [k, j, i] on the volume's grid as a stack [slices, rows, columns], without a copy.

        Raises:
            ValueError: if the array differs in shape from the volume.
        """
        _check_shape(array, self.shape)
        result: np.ndarray = array.transpose(self.axes)[self._steps()]
        return result

    def to_volume(self, stack: np.ndarray) -> np.ndarray:
        """Map a stack [slices, rows, columns] back to the volume's grid: a contiguous array [k, j, i].

        Raises:
            ValueError: if the stack differs in shape from `stack_shape`.
        """
        _check_shape(stack, self.stack_shape)
        inverse = np.argsort(self.axes)
        return np.ascontiguousarray(stack[self._steps()].transpose(inverse))

    def volume_slice_index(self, slice_index: int) -> int:
        """Index of a slice of the stack along the volume's own slice axis."""
        count = self.stack_shape[0]
        return count - 1 - slice_index if self.reversed_axes[0] else slice_index

    def _steps(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if backwards else 1) for backwards in self.reversed_axes)


def to_slices(array: np.ndarray, geometry: Geometry, plane: str = "acquisition") -> tuple[np.ndarray, SliceFrame]:
    """Slice a volume in canonical orientation.

    Args:
        array: shape (k, j, i), on the grid of `geometry`.
        geometry: its grid.
        plane: "acquisition", "axial", "coronal" or "sagittal".

    Returns:
        The stack [slices, rows, columns], a view of `array`, and the frame for the way back.

    Raises:
        RequestError: if the plane is unknown.
    """
    frame = slice_frame(geometry, plane)
    return frame.to_stack(array), frame


def slice_frame(geometry: Geometry, plane: str = "acquisition") -> SliceFrame:
    """Choose the slice, row and column axes of a grid, and their directions.

    Raises:
        RequestError: if the plane is unknown.
    """
    directions = geometry.direction_matrix
    across = slice_axis(geometry, plane)
    in_plane = [axis for axis in range(3) if axis != across]
    normal = _towards_reference(_plane_normal(directions, in_plane))
    column, column_sign = _column_axis(directions, in_plane, normal)
    row = in_plane[1] if column == in_plane[0] else in_plane[0]
    row_sign = _sign(np.cross(normal, column_sign * directions[:, column]) @ directions[:, row])
    slice_sign = _sign(directions[:, across] @ normal)
    chosen = ((across, slice_sign), (row, row_sign), (column, column_sign))
    return SliceFrame(
        shape=geometry.shape,
        axes=triple(2 - axis for axis, _ in chosen),
        reversed_axes=triple(sign < 0 for _, sign in chosen),
        spacing_mm=triple(float(geometry.spacing_mm[axis]) for axis, _ in chosen),
        directions=triple(triple(float(v) for v in sign * directions[:, axis]) for axis, sign in chosen),
    )


def slice_axis(geometry: Geometry, plane: str = "acquisition") -> int:
    """The voxel axis (0 is i, 2 is k) across the slices of a plane.

    "acquisition" is the only axis with one voxel, else the axis with clearly the largest spacing, else axial.

    Raises:
        RequestError: if the plane is unknown.
    """
    if plane not in PLANES:
        raise RequestError(f'There is no slice plane "{plane}"; choose one of {", ".join(PLANES)}.')
    if plane == "acquisition":
        flat = [axis for axis in range(3) if geometry.size[axis] == 1]
        if len(flat) == 1:
            return flat[0]
        order = np.argsort(geometry.spacing_mm)
        if geometry.spacing_mm[order[2]] >= _CLEARLY_LARGER * geometry.spacing_mm[order[1]]:
            return int(order[2])
        plane = "axial"
    return _closest_axis(geometry.direction_matrix, _LPS_AXIS_OF_PLANE[plane])


def _closest_axis(directions: np.ndarray, lps_axis: int) -> int:
    """The voxel axis closest to an LPS axis, ignoring its sign; at 45 degrees the products of components decide."""
    others = [axis for axis in range(3) if axis != lps_axis]
    candidates = list(range(3))
    keys = [directions[lps_axis] ** 2]
    keys += [directions[lps_axis] * directions[axis] for axis in others]
    keys.append(directions[others[0]] * directions[others[1]])
    return _first_by_keys(candidates, np.array(keys).T)


def _plane_normal(directions: np.ndarray, in_plane: list[int]) -> np.ndarray:
    normal = np.cross(directions[:, in_plane[0]], directions[:, in_plane[1]])
    array: np.ndarray = normal / np.linalg.norm(normal)
    return array


def _towards_reference(normal: np.ndarray) -> np.ndarray:
    """The normal or its opposite, whichever points toward superior, posterior and right."""
    sides = [normal, -normal]
    keys = np.array([[side @ _NORMAL_REFERENCE, side[2], side[1]] for side in sides])
    return sides[_first_by_keys([0, 1], keys)]


def _column_axis(directions: np.ndarray, in_plane: list[int], normal: np.ndarray) -> tuple[int, int]:
    """The voxel axis of the columns, and its sign."""
    target = _column_target(normal)
    candidates = [(axis, sign) for axis in in_plane for sign in (1, -1)]
    vectors = np.array([sign * directions[:, axis] for axis, sign in candidates])
    keys = np.column_stack([vectors @ target, vectors[:, [1, 0, 2]]])
    return candidates[_first_by_keys(list(range(4)), keys)]


def _column_target(normal: np.ndarray) -> np.ndarray:
    """Target direction of the columns for slices with this normal: an LPS vector in the plane.

    Weight and power were chosen so that an axial slice tilted by up to 45 degrees still counts as axial, and the
    25 short-axis scans of the development data are at least 15 degrees away from where the choice would change.
    """
    left = _LEFT - normal[0] * normal
    back = _BACK - normal[1] * normal
    leaning = max(normal[1] - normal[0], 0.0) / np.sqrt(2.0)
    rows_to_feet = np.cross(_FEET, normal)
    array: np.ndarray = left + _LEANING_WEIGHT * leaning**_LEANING_POWER * (rows_to_feet + max(-normal[0], 0.0) * back)
    return array


def _first_by_keys(candidates: list[int], keys: np.ndarray) -> int:
    """The candidate with the largest first key; candidates within the tolerance are compared by the next key."""
    remaining = list(candidates)
    for key in keys.T:
        best = max(key[index] for index in remaining)
        remaining = [index for index in remaining if key[index] >= best - _TIE]
        if len(remaining) == 1:
            break
    return remaining[0]


def _sign(value: float) -> int:
    return -1 if value < 0 else 1


def _check_shape(array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"expected an array of shape {shape}, got {array.shape}")
