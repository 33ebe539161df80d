"""Request and outcome of segmenting one scan: plain data for panel, command line, Python and worker.

Labels and surfaces of an outcome are files.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import VolumeInput
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.result import LabelResult, Plausibility, SegmentationResult
from HSAMSegmentLib.labels.label_set import Label


@dataclass(frozen=True)
class OutputFiles:
    """Output files of one scan.

    Attributes:
        segmentation: the segmentation file.
        preview: picture, or None.
        report: JSON report, or None.
        overwrite: replace existing files.
        statistics: table of the structures (CSV), or None.
        format: name of the segmentation format ("rtstruct"); "" for that of the suffix.
    """

    segmentation: Path
    preview: Path | None = None
    report: Path | None = None
    overwrite: bool = False
    statistics: Path | None = None
    format: str = ""

    def all(self) -> tuple[Path, ...]:
        """Every requested file."""
        return tuple(
            path for path in (self.segmentation, self.preview, self.report, self.statistics) if path is not None
        )


@dataclass(frozen=True)
class SegmentRequest:
    """Segment the organs of one scan.

    Attributes:
        input: the scan.
        model: model ID or path of a weights file; "" for the only installed model that fits.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        options: organs, region, precision, test-time augmentation, post-processing.
        files: files to write, or None.
        output_folder: where a worker leaves the label array and the surfaces; "" to keep the result in this process.
        surfaces: also compute a closed surface per organ, if the worker can.
        preview: report finished slices while the workflow runs.
    """

    kind: ClassVar[str] = "segment"

    input: VolumeInput
    model: str = ""
    device: str = "auto"
    options: SegmentOptions = field(default_factory=SegmentOptions)
    files: OutputFiles | None = None
    output_folder: str = ""
    surfaces: bool = False
    preview: bool = False


@dataclass(frozen=True)
class OrganOutcome:
    """One organ.

    Attributes:
        label: name, color, code and value in the label array.
        volume_ml: volume in milliliters, 0 if not found.
        confidence: 0 to 1, None if not found.
        center_ijk: one of its voxels in its largest slice, None if not found.
        uncertain_ijk: one of its voxels in its least certain slice, None if not found.
        surface_file: `.vtp` file of its closed surface in RAS mm, empty without one.
    """

    label: Label
    volume_ml: float = 0.0
    confidence: float | None = None
    center_ijk: tuple[int, int, int] | None = None
    uncertain_ijk: tuple[int, int, int] | None = None
    surface_file: str = ""

    @property
    def found(self) -> bool:
        """Whether the scan shows it."""
        return self.center_ijk is not None


@dataclass(frozen=True)
class SegmentOutcome:
    """The result of a `SegmentRequest`.

    Attributes:
        geometry: grid of the scan.
        box: voxel bounds (i0, i1, j0, j1, k0, k1) of the labeled part, upper bounds excluded; all 0 if empty.
        label_file: `.npy` file with the uint8 labels (k, j, i) of that part; empty if nothing was found.
        organs: the requested organs, in the model's order.
        model_id: ID of the model.
        model_title: title of the model.
        warnings: sentences for the user.
        device: device that it ran on.
        precision: precision that it ran in.
        precision_reason: a sentence on why this precision was used.
        seconds: duration.
        report: all details, as in the JSON report of the command line.
        plausibility: how well the result matches the model's training data; None if unknown.
    """

    geometry: Geometry
    box: tuple[int, int, int, int, int, int]
    label_file: str
    organs: tuple[OrganOutcome, ...]
    model_id: str
    model_title: str
    warnings: tuple[str, ...] = ()
    device: str = ""
    precision: str = ""
    precision_reason: str = ""
    seconds: float = 0.0
    report: dict[str, Any] | None = None
    plausibility: Plausibility | None = None

    @property
    def found(self) -> tuple[OrganOutcome, ...]:
        """The organs that the scan shows."""
        return tuple(organ for organ in self.organs if organ.found)

    def read_labels(self) -> np.ndarray | None:
        """A copy of the labels inside `box`, uint8 (k, j, i); None if nothing was found."""
        return np.load(self.label_file) if self.label_file else None

    def with_surfaces(self, files: dict[int, str]) -> SegmentOutcome:
        """A copy with the surface files of the organs, by label value."""
        organs = (replace(organ, surface_file=files.get(organ.label.value, "")) for organ in self.organs)
        return replace(self, organs=tuple(organs))


def stored_outcome(result: SegmentationResult, folder: Path) -> SegmentOutcome:
    """Store the labels of a result in a folder, for another process."""
    label_file = folder / "labels.npy"
    box = write_labels(result.segmentation.array, label_file)
    return SegmentOutcome(
        geometry=result.segmentation.geometry,
        box=box or (0, 0, 0, 0, 0, 0),
        label_file=str(label_file) if box else "",
        organs=tuple(_organ(item) for item in result.labels),
        model_id=result.model_id,
        model_title=result.model_title,
        warnings=result.warnings,
        device=result.device,
        precision=result.precision,
        precision_reason=result.precision_reason,
        seconds=result.timings_s.get("total", 0.0),
        plausibility=result.plausibility,
    )


def _organ(item: LabelResult) -> OrganOutcome:
    if not item.slices:
        return OrganOutcome(item.label)
    largest = max(item.slices, key=lambda entry: entry.voxels)
    uncertain = item.least_certain or largest
    return OrganOutcome(item.label, item.volume_ml, item.confidence, largest.position_ijk, uncertain.position_ijk)


def write_labels(labels: np.ndarray, path: Path) -> tuple[int, int, int, int, int, int] | None:
    """Write the labeled part of a label array (k, j, i).

    Returns:
        Its box (i0, i1, j0, j1, k0, k1), upper bounds excluded; None, without a file, if all is background.
    """
    spans = [_span(np.asarray(labels.any(axis=others))) for others in ((0, 1), (0, 2), (1, 2))]
    if None in spans:
        return None
    (i0, i1), (j0, j1), (k0, k1) = (span for span in spans if span is not None)
    np.save(path, labels[k0:k1, j0:j1, i0:i1])
    return (i0, i1, j0, j1, k0, k1)


def _span(present: np.ndarray) -> tuple[int, int] | None:
    indices = np.flatnonzero(present)
    return (int(indices[0]), int(indices[-1]) + 1) if indices.size else None
