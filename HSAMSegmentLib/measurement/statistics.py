"""Size, position, shape and intensity of each structure of a label map.

Voxels belong to a structure entirely or not at all, so edge voxels contain some of the neighboring tissue: means are
drawn toward it, and the standard deviation is larger than that of the structure. The median hardly changes, and
`core_mean` excludes the edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from scipy import ndimage

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry, same_grid
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.labels.label_set import Label
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.terminology import side_of

_PERCENTILES = {"p05": 5, "p25": 25, "median": 50, "p75": 75, "p95": 95}
_SIGNIFICANT_DIGITS = 7


@dataclass(frozen=True)
class StructureStatistics:
    """One structure of one scan. Values other than `voxels`, `volume_ml` and `parts` are None if it was not found.

    Attributes:
        structure: its name.
        code: scheme and value of its code, such as "SCT:10200004", or "".
        side: "right", "left", or "" for structures without a side.
        voxels: number of voxels.
        volume_ml: volume, correct for sheared slices (a tilted gantry), too.
        surface_cm2: surface area by Crofton's formula, as in ITK (Lehmann and Legland 2012).
        mean, sd, min, p05, p25, median, p75, p95, max: intensity statistics over all voxels; the standard deviation
            divides by n - 1. None without a scan.
        core_mean: mean of the voxels whose six neighbors also belong to the structure; None if there are none.
        extent_right_left_mm, extent_front_back_mm, extent_head_feet_mm: size of the bounding box along the patient
            axes.
        centroid_r_mm, centroid_a_mm, centroid_s_mm: centroid in RAS mm (right, anterior, superior positive).
        parts: number of components, connected by corners (26 neighbors).
        largest_part: fraction of the voxels in the largest component.
        touches_border: whether it reaches the border of the scan, and so may be cut off.
        confidence: the model's confidence, 0 to 1; None for labels without a model.
    """

    structure: str
    code: str = ""
    side: str = ""
    voxels: int = 0
    volume_ml: float = 0.0
    surface_cm2: float | None = None
    mean: float | None = None
    sd: float | None = None
    min: float | None = None
    p05: float | None = None
    p25: float | None = None
    median: float | None = None
    p75: float | None = None
    p95: float | None = None
    max: float | None = None
    core_mean: float | None = None
    extent_right_left_mm: float | None = None
    extent_front_back_mm: float | None = None
    extent_head_feet_mm: float | None = None
    centroid_r_mm: float | None = None
    centroid_a_mm: float | None = None
    centroid_s_mm: float | None = None
    parts: int = 0
    largest_part: float | None = None
    touches_border: bool | None = None
    confidence: float | None = None

    @property
    def found(self) -> bool:
        """Whether it has any voxel."""
        return self.voxels > 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, numbers with seven digits."""
        return {name: _rounded(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StructureStatistics:
        """Read what `to_json` wrote; values that an older version did not measure stay unknown."""
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known})


def measure(
    segmentation: Segmentation, volume: Volume | None = None, confidences: Mapping[str, float | None] | None = None
) -> tuple[StructureStatistics, ...]:
    """Measure every structure, including those without voxels.

    Args:
        segmentation: the labels.
        volume: the scan on the same grid, for intensities; None to skip them.
        confidences: the model's confidence by structure name.

    Raises:
        RequestError: if the scan has another grid than the labels.
    """
    if volume is not None and not same_grid(segmentation.geometry, volume.geometry):
        raise RequestError("The labels and the scan are on different grids; intensities need the same one.")
    boxes = ndimage.find_objects(segmentation.array)
    array = None if volume is None else volume.array
    known = confidences or {}
    return tuple(_measured(segmentation, array, label, boxes, known.get(label.name)) for label in segmentation.labels)


def intensity_unit(volume: Volume | None) -> str:
    """ "HU" for CT, else "" (MR intensities have no unit)."""
    return "HU" if volume is not None and volume.modality == "CT" else ""


def _measured(
    segmentation: Segmentation,
    intensities: np.ndarray | None,
    label: Label,
    boxes: list[tuple[slice, ...] | None],
    confidence: float | None,
) -> StructureStatistics:
    terms = label.terminology
    code = f"{terms.type.scheme}:{terms.type.value}" if terms is not None else ""
    box = boxes[label.value - 1] if label.value <= len(boxes) else None
    if box is None:
        return StructureStatistics(label.name, code, side_of(label))
    mask, geometry = segmentation.array[box] == label.value, segmentation.geometry
    voxels = int(np.count_nonzero(mask))
    values: dict[str, Any] = {} if intensities is None else _intensities(intensities[box], mask)
    return StructureStatistics(
        label.name,
        code,
        side_of(label),
        voxels=voxels,
        volume_ml=voxels * geometry.voxel_volume_ml,
        surface_cm2=_surface_cm2(mask, geometry),
        touches_border=any(
            part.start == 0 or part.stop == length for part, length in zip(box, segmentation.array.shape)
        ),
        confidence=confidence,
        **values,
        **_place(mask, box, geometry),
        **_parts(mask),
    )


def _intensities(intensities: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    values = intensities[mask].astype(np.float64)
    core = ndimage.binary_erosion(mask)
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
        "min": float(values.min()),
        "max": float(values.max()),
        "core_mean": float(intensities[core].mean(dtype=np.float64)) if core.any() else None,
        **dict(zip(_PERCENTILES, np.percentile(values, list(_PERCENTILES.values())).tolist())),
    }


def _place(mask: np.ndarray, box: tuple[slice, ...], geometry: Geometry) -> dict[str, Any]:
    """Centroid and extent along the patient axes, treating voxels as boxes."""
    to_ras = geometry.ijk_to_ras
    start = np.array([part.start for part in reversed(box)])
    along = [mask.sum(axis=others, dtype=np.int64) for others in ((0, 1), (0, 2), (1, 2))]
    mean = np.array([np.arange(len(counts)) @ counts / counts.sum() for counts in along])
    center = to_ras[:3, :3] @ (mean + start) + to_ras[:3, 3]
    extent = np.ptp(_row_ends(mask) @ to_ras[:3, :3].T, axis=0) + np.abs(to_ras[:3, :3]).sum(axis=1)
    names = ("extent_right_left_mm", "extent_front_back_mm", "extent_head_feet_mm")
    centers = ("centroid_r_mm", "centroid_a_mm", "centroid_s_mm")
    return {**dict(zip(names, extent.tolist())), **dict(zip(centers, center.tolist()))}


def _row_ends(mask: np.ndarray) -> np.ndarray:
    """Indices (i, j, k) of the first and last voxel of each row, which include the extremes in any direction."""
    k, j = np.nonzero(mask.any(axis=2))
    rows = mask[k, j]
    first, last = rows.argmax(axis=1), mask.shape[2] - 1 - rows[:, ::-1].argmax(axis=1)
    return np.concatenate([np.column_stack([first, j, k]), np.column_stack([last, j, k])])


def _parts(mask: np.ndarray) -> dict[str, Any]:
    pieces, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())[1:]
    return {"parts": int(count), "largest_part": float(sizes.max() / sizes.sum())}


def _surface_cm2(mask: np.ndarray, geometry: Geometry) -> float:
    import SimpleITK as sitk  # the panel names statistics without computing any

    image = sitk.GetImageFromArray(np.pad(mask, 1).astype(np.uint8))
    image.SetSpacing([float(value) for value in geometry.spacing_mm])
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.ComputePerimeterOn()
    shapes.Execute(image)
    return float(shapes.GetPerimeter(1)) / 100.0


def _rounded(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, float):
        return value
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}") if np.isfinite(value) else None
