"""The public Python API: segment, evaluate, and look models up, in one call each.

Import it from the package: `import HSAMSegmentLib as hsam`. Everything heavy is imported at the first call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.inference.options import PostprocessOptions, SegmentOptions
from HSAMSegmentLib.runtime.progress import CancelToken, Progress

if TYPE_CHECKING:
    import nibabel
    import numpy as np
    import pandas
    import SimpleITK as sitk

    from HSAMSegmentLib.evaluation.metrics import Comparison, LabelScore
    from HSAMSegmentLib.images.geometry import Geometry
    from HSAMSegmentLib.images.volume import Volume
    from HSAMSegmentLib.inference.result import SegmentationResult
    from HSAMSegmentLib.labels.segmentation import Segmentation
    from HSAMSegmentLib.weights.loading import LoadedModel
    from HSAMSegmentLib.weights.store import Store
    from HSAMSegmentLib.weights.store_entries import ModelEntry

    Scan = Union[str, Path, sitk.Image, nibabel.spatialimages.SpatialImage, Volume, tuple[np.ndarray, Geometry]]
    Labels = Union[str, Path, SegmentationResult, Segmentation]

NO_POSTPROCESSING = PostprocessOptions(largest_piece=False, fill_holes=False, minimum_ml=0.0)


def segment(
    scan: Scan,
    model: str | Path | LoadedModel = "",
    *,
    organs: Sequence[str] = (),
    roi: tuple[int, int, int, int, int, int] | None = None,
    series: str = "",
    device: str = "auto",
    precision: str = "auto",
    tta: bool = True,
    postprocess: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: CancelToken | None = None,
    store: Store | None = None,
) -> SegmentationResult:
    """Segment the organs of a scan.

    Args:
        scan: a file (NIfTI, NRRD, MetaImage, DICOM), a DICOM folder, a SimpleITK or nibabel image, a `Volume`, or an
            array (k, j, i) with its `Geometry`.
        model: id of a model, a file, or a loaded model; "" to take the only one that fits the scan.
        organs: names of the structures to keep; all by default.
        roi: voxel box (i0, i1, j0, j1, k0, k1), upper bounds excluded; the whole scan by default.
        series: UID, number or description of a DICOM series of a folder.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "full" (float32) or "mixed".
        tta: whether a model that asks for test-time augmentation or several planes gets them.
        postprocess: whether small and stray pieces are dropped and holes are filled.
        on_progress: receives `Progress` with a fraction and the estimated remaining time.
        cancel: call its `cancel()` from another thread to stop within a second.
        store: where models are looked up; the user's own by default.

    Returns:
        Labels on exactly the grid of the scan, with volumes in mL and confidences.

    Raises:
        HSAMSegmentError: one sentence on what is wrong and what to do; CancelledError after a cancel.
    """
    from HSAMSegmentLib.weights.loading import LoadedModel
    from HSAMSegmentLib.workflows.context import Context, ignore_event
    from HSAMSegmentLib.workflows.inputs import VolumeInput
    from HSAMSegmentLib.workflows.segment.model_cache import ModelCache
    from HSAMSegmentLib.workflows.segment.segment_request import SegmentRequest
    from HSAMSegmentLib.workflows.segment.segment_scan import segment_scan

    loaded = model if isinstance(model, LoadedModel) else None
    path, volume = _opened(scan)
    request = SegmentRequest(
        input=VolumeInput(path=path or "in memory", series=series),
        model="" if loaded is not None else str(model),
        device=device,
        options=SegmentOptions(
            organs=tuple(organs),
            roi=roi,
            precision=precision,
            view_averaging=tta,
            postprocess=PostprocessOptions() if postprocess else NO_POSTPROCESSING,
        ),
    )
    shared = {"models": ModelCache(store, model=loaded)}
    return segment_scan(request, Context(on_progress or ignore_event, cancel or CancelToken(), shared=shared), volume)


def evaluate(
    prediction: Labels,
    reference: Labels,
    *,
    structures: Sequence[str] = (),
    convention: str = "ours",
) -> Evaluation:
    """Compare a segmentation with a reference, structure by structure.

    Args:
        prediction: what is judged: a file, a result of `segment`, or a `Segmentation`.
        reference: what is taken as true.
        structures: names to compare; all by default.
        convention: "ours" (distances in mm) or "hsam" (in voxels, as the tables of the papers).

    Returns:
        Dice, Jaccard, HD95, ASD and volumes of each structure.

    Raises:
        HSAMSegmentError: if a file cannot be read, or there is nothing to compare.
    """
    from HSAMSegmentLib.evaluation.metrics import compare

    both = prediction, reference
    if all(isinstance(item, (str, Path)) for item in both):
        from HSAMSegmentLib.labels.segmentation_files import read_two_segmentations

        first, second = read_two_segmentations(prediction, reference)
    else:
        known = next(_labels(item, None) for item in both if not isinstance(item, (str, Path)))
        first, second = (_labels(item, known.geometry) for item in both)
    return Evaluation(compare(first, second, convention, organs=tuple(structures)))


def read_segmentation(path: str | Path) -> Segmentation:
    """Read labels with their names from a file.

    Raises:
        VolumeError: if it cannot be read, or is not a segmentation.
    """
    from HSAMSegmentLib.labels.segmentation_files import read_segmentation as read

    return read(path)


def read_volume(path: str | Path, *, series: str | None = None) -> Volume:
    """Read a scan from a file or a DICOM folder.

    Raises:
        VolumeError: if it cannot be read.
    """
    from HSAMSegmentLib.io.volume_files import read_volume as read

    return read(path, series=series)


def list_models(*, store: Store | None = None) -> list[ModelEntry]:
    """Models and encoders that are installed or can be downloaded; nothing is loaded."""
    from HSAMSegmentLib.weights.store import Store

    return (store or Store()).models()


def load_model(reference: str | Path, *, store: Store | None = None) -> LoadedModel:
    """Load a model by id or file, to use it for many scans.

    Raises:
        ModelNotFoundError: if it is not on this computer; says how to get it.
        CheckpointError: if the file is damaged, unsafe, unknown, or an encoder only.
    """
    from HSAMSegmentLib.weights.loading import load_model as load

    return load(reference, store=store)


@dataclass(frozen=True)
class Evaluation:
    """How well two segmentations agree.

    Attributes:
        comparison: all numbers, with notes on what was resampled or not compared.
    """

    comparison: Comparison

    def __getitem__(self, name: str) -> LabelScore:
        """The scores of a structure by its name, in any case."""
        for score in self.comparison.scores:
            if score.name.lower() == name.lower():
                return score
        raise KeyError(name)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what was resampled, missing or not compared."""
        return self.comparison.notes

    def mean(self, metric: str = "dice") -> float | None:
        """Mean of "dice", "jaccard", "hd95" or "asd" over the structures that have it."""
        return self.comparison.mean(metric)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values with the definitions of the metrics."""
        from HSAMSegmentLib.report.comparison_report import comparison_to_json

        return comparison_to_json(self.comparison)

    def to_dataframe(self) -> pandas.DataFrame:
        """One row per structure.

        Raises:
            RequestError: if pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise RequestError("A data frame needs pandas; install it with 'pip install pandas'.") from error
        columns = ("name", "state", "dice", "jaccard", "hd95", "asd", "prediction_ml", "reference_ml")
        rows = [{name: getattr(score, name) for name in columns} for score in self.comparison.scores]
        return pandas.DataFrame(rows, columns=list(columns)).set_index("name")


def _labels(source: Labels, grid: Geometry | None) -> Segmentation:
    from HSAMSegmentLib.inference.result import SegmentationResult
    from HSAMSegmentLib.labels.segmentation_files import read_segmentation as read

    if isinstance(source, (str, Path)):
        return read(source, grid=grid)
    return source.segmentation if isinstance(source, SegmentationResult) else source


def _opened(scan: Scan) -> tuple[str, Volume | None]:
    """The path of a scan, or the scan itself where it is in memory.

    Raises:
        RequestError: if it is of none of the known kinds.
    """
    from HSAMSegmentLib.images.volume import Volume

    if isinstance(scan, (str, Path)):
        return str(scan), None
    if isinstance(scan, Volume):
        return "", scan
    if isinstance(scan, tuple) and len(scan) == 2:
        return "", _volume_of(*scan)
    if hasattr(scan, "GetSpacing") and hasattr(scan, "GetDirection"):
        return "", _volume_of_sitk(scan)
    if hasattr(scan, "affine") and hasattr(scan, "dataobj"):
        return "", _volume_of_nibabel(scan)
    raise RequestError(
        f"A scan is a path, a SimpleITK or nibabel image, a Volume, or an array with its Geometry, not {type(scan)}."
    )


def _volume_of(array: np.ndarray, geometry: Geometry) -> Volume:
    from HSAMSegmentLib.images.modality import guess_modality
    from HSAMSegmentLib.images.volume import Volume
    from HSAMSegmentLib.io.volume_files import finite_array

    if tuple(array.shape) != geometry.shape:
        raise RequestError(
            f"The array has the shape {tuple(array.shape)} and the geometry {geometry.shape}; both are (k, j, i)."
        )
    finite, notes = finite_array(array)
    return Volume(finite, geometry, modality=guess_modality(finite), notes=notes)


def _volume_of_sitk(image: sitk.Image) -> Volume:
    import SimpleITK as sitk

    from HSAMSegmentLib.images.sitk_images import geometry_of

    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise RequestError("A scan has three dimensions and one value per voxel.")
    return _volume_of(sitk.GetArrayFromImage(image), geometry_of(image))


def _volume_of_nibabel(image: nibabel.spatialimages.SpatialImage) -> Volume:
    """nibabel's arrays are (i, j, k), its affine leads to RAS mm."""
    import numpy as np

    from HSAMSegmentLib.images.geometry import Geometry

    array = np.asanyarray(image.dataobj)
    if array.ndim != 3:
        raise RequestError(f"A scan has three dimensions; this image has {array.ndim}.")
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(image.affine, dtype=np.float64)
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    if not spacing.all():
        raise RequestError("The affine of the image has a spacing of zero; set a valid one.")
    geometry = Geometry(
        size=(int(array.shape[0]), int(array.shape[1]), int(array.shape[2])),
        spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        origin_mm=(float(to_lps[0, 3]), float(to_lps[1, 3]), float(to_lps[2, 3])),
        direction=tuple(float(value) for value in (to_lps[:3, :3] / spacing).ravel()),
    )
    return _volume_of(np.ascontiguousarray(array.transpose(2, 1, 0)), geometry)
