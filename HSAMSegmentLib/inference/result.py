"""The result of segmenting a volume: labels on its grid, with statistics per label. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from HSAMSegmentLib.labels.label_set import Label
from HSAMSegmentLib.labels.segmentation import Segmentation

if TYPE_CHECKING:
    import SimpleITK as sitk

    from HSAMSegmentLib.export.source_images import Origin


@dataclass(frozen=True)
class SliceConfidence:
    """Confidence of a label in one slice.

    Attributes:
        index: index along the slicing axis of the volume.
        position_ijk: the label's voxel in this slice that is nearest to its center of mass.
        voxels: voxels of the label in this slice, after post-processing.
        agreement: Dice between the first and the last stage, 0 to 1; None for single-stage networks.
        margin: mean lead of the label's probability over the second best, 0 to 1.
        confidence: both combined, 0 to 1.
    """

    index: int
    position_ijk: tuple[int, int, int]
    voxels: int
    agreement: float | None
    margin: float
    confidence: float


@dataclass(frozen=True)
class LabelResult:
    """One label of a result.

    Attributes:
        label: name, color and code.
        voxels: number of voxels.
        volume_ml: volume in milliliters.
        agreement, margin, confidence: as in `SliceConfidence`, over all slices; None if nothing was found.
        slices: one entry per slice with the label, in ascending order.
        least_certain: the slice with the lowest confidence among those with at least a tenth of the largest slice's
            area (the end slices are always uncertain); None if nothing was found.
        bounding_box: (i0, i1, j0, j1, k0, k1), upper bounds excluded; None if nothing was found.
    """

    label: Label
    voxels: int
    volume_ml: float
    agreement: float | None = None
    margin: float | None = None
    confidence: float | None = None
    slices: tuple[SliceConfidence, ...] = ()
    least_certain: SliceConfidence | None = None
    bounding_box: tuple[int, int, int, int, int, int] | None = None


@dataclass(frozen=True)
class Plausibility:
    """How well a result matches the model's training data; see `inference.plausibility`. All values from 0 to 1.

    Attributes:
        score: the product of the others.
        confidence: score of the confidence, relative to what is usual for the model.
        volume: score of the volumes, relative to the training scans.
        intensity: score of the intensities, relative to the training scans.
        reasons: what is unusual, in a few words each.
    """

    score: float
    confidence: float
    volume: float
    intensity: float
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class SegmentationResult:
    """The result of segmenting one volume.

    Attributes:
        segmentation: labels on the volume's grid.
        labels: one entry per requested label, in the model's order, including empty ones.
        slice_axis: the voxel axis across the slices: "i", "j" or "k".
        warnings: sentences for the user.
        model_id: ID of the model.
        model_title: title of the model.
        device: device at the end of the run.
        precision: "full", or "mixed (bfloat16)" and the like.
        precision_reason: a sentence on why this precision was used.
        batch_size: slices per forward pass at the end of the run.
        timings_s: seconds by stage ("network", "postprocessing", ..., "total").
        other_planes: planes that were predicted in addition to that of the slices.
        dicom_files: the scan's DICOM files in slice order, for DICOM results to reference; empty for other scans.
        plausibility: how well the result matches the model's training data; None if unknown.
    """

    segmentation: Segmentation
    labels: tuple[LabelResult, ...]
    slice_axis: str
    warnings: tuple[str, ...] = ()
    model_id: str = ""
    model_title: str = ""
    device: str = "cpu"
    precision: str = "full"
    precision_reason: str = ""
    batch_size: int = 1
    timings_s: dict[str, float] = field(default_factory=dict)
    other_planes: tuple[str, ...] = ()
    dicom_files: tuple[Path, ...] = ()
    plausibility: Plausibility | None = None

    def __getitem__(self, name: str) -> LabelResult:
        """Get a structure by name, ignoring case.

        Raises:
            KeyError: listing the available structures.
        """
        for item in self.labels:
            if item.label.name.lower() == name.lower():
                return item
        raise KeyError(f"{name}; there are {', '.join(item.label.name for item in self.labels)}")

    @property
    def found(self) -> tuple[LabelResult, ...]:
        """The labels with at least one voxel."""
        return tuple(item for item in self.labels if item.voxels)

    def to_sitk(self) -> sitk.Image:
        """Convert the label map to a SimpleITK image of uint8 on the grid of the scan."""
        from HSAMSegmentLib.images.sitk_images import image_of

        return image_of(self.segmentation.array, self.segmentation.geometry)

    @property
    def origin(self) -> Origin:
        """Scan and model, as recorded in DICOM files."""
        from HSAMSegmentLib.export.source_images import Origin

        return Origin(self.dicom_files, self.model_id, self.model_title)

    def save(self, path: str | Path, *, format: str = "", overwrite: bool = False) -> Path:
        """Save the organs with names, colors and codes, atomically.

        Args:
            path: .seg.nrrd, .nrrd, .nii.gz, .nii, .mha (label maps), .dcm (DICOM Segmentation), .rtstruct.dcm (RT
                Structure Set), .stl, .obj or .vtp (surfaces in LPS mm) file.
            format: "dicom-seg", "rtstruct", ... if the suffix does not determine it.
            overwrite: replace an existing file.

        Raises:
            RequestError: if the format is unknown, or needs a package that is not installed.
            OutputError: if the file exists, has an unknown suffix, or cannot be written; DICOM formats require a DICOM
                scan.
        """
        from HSAMSegmentLib.export.formats import save_segmentation

        save_segmentation(self.segmentation, Path(path), self.origin, format_name=format, overwrite=overwrite)
        return Path(path)
