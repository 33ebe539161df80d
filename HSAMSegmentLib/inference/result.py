"""What segmenting yields: the labels on the volume's grid, and what is known about each of them. Plain data."""

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
    """How certain a label is in one slice.

    Attributes:
        index: index of the slice along the slicing axis of the volume.
        position_ijk: the voxel of the label in this slice that is nearest to its center of mass there.
        voxels: voxels of the label in this slice, after post-processing.
        agreement: Dice of the first and the last stage, 0 to 1; None for networks with one stage.
        margin: mean lead of the label's probability over the second best, 0 to 1.
        confidence: both in one number, 0 to 1.
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
        voxels: number of its voxels.
        volume_ml: their volume in milliliters.
        agreement, margin, confidence: as in `SliceConfidence`, over all of its slices; None if nothing was found.
        slices: one entry per slice that has it, ascending.
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
    """How well a result fits what the model was trained on, see `inference.plausibility`. All between 0 and 1.

    Attributes:
        score: the product of the others.
        confidence: relative to what is usual for the model.
        volume: whether volumes are in the range of the training scans.
        intensity: whether intensities are.
        reasons: what is unusual, in a few words each.
    """

    score: float
    confidence: float
    volume: float
    intensity: float
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class SegmentationResult:
    """Everything that segmenting one volume yields.

    Attributes:
        segmentation: labels on exactly the volume's grid.
        labels: one entry per requested label, in the model's order, empty ones included.
        slice_axis: the voxel axis the slices follow: "i", "j" or "k".
        warnings: sentences a user should read.
        model_id: id of the model.
        model_title: its title.
        device: where it ran, at the end.
        precision: "full", or "mixed (bfloat16)" and the like.
        precision_reason: why in this precision, a sentence.
        batch_size: slices per run, at the end.
        timings_s: seconds by stage ("network", "postprocessing", ..., "total").
        other_planes: planes that were read besides that of the slices.
        dicom_files: DICOM files of the scan in the order of its slices, which DICOM results refer to; else none.
        plausibility: how well the result fits what the model was trained on; None if that is not known.
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
        """What is known about a structure, by its name in any case.

        Raises:
            KeyError: naming the structures that there are.
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
        """The label map as a SimpleITK image of uint8 on the grid of the scan."""
        from HSAMSegmentLib.images.sitk_images import image_of

        return image_of(self.segmentation.array, self.segmentation.geometry)

    @property
    def origin(self) -> Origin:
        """The scan and the model, as files in DICOM formats tell them."""
        from HSAMSegmentLib.export.source_images import Origin

        return Origin(self.dicom_files, self.model_id, self.model_title)

    def save(self, path: str | Path, *, format: str = "", overwrite: bool = False) -> Path:
        """Write the organs with names, colors and codes, completely or not at all.

        Args:
            path: .seg.nrrd, .nrrd, .nii.gz, .nii, .mha (label maps), .dcm (DICOM Segmentation), .rtstruct.dcm (RT
                Structure Set), .stl, .obj or .vtp (surfaces in LPS mm) file.
            format: "dicom-seg", "rtstruct", ... where the suffix does not say it.
            overwrite: whether an existing file may be replaced.

        Raises:
            RequestError: if the format is unknown, or needs a package that is not installed.
            OutputError: if the file exists, has an unknown suffix, or cannot be written; DICOM formats need a DICOM
                scan.
        """
        from HSAMSegmentLib.export.formats import save_segmentation

        save_segmentation(self.segmentation, Path(path), self.origin, format_name=format, overwrite=overwrite)
        return Path(path)
