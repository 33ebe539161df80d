"""The public Python API: one call each to segment, fine-tune, evaluate and find models.

Import it from the package: `import HSAMSegmentLib as hsam`. Heavy dependencies are imported at the first call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from HSAMSegmentLib.api_results import Evaluation, FinetunedModel
from HSAMSegmentLib.errors import RequestError, TrainingError
from HSAMSegmentLib.inference.options import PostprocessOptions, SegmentOptions
from HSAMSegmentLib.runtime.progress import CancelToken, Progress

if TYPE_CHECKING:
    import nibabel
    import numpy as np
    import pandas
    import SimpleITK as sitk

    from HSAMSegmentLib.images.geometry import Geometry
    from HSAMSegmentLib.images.volume import Volume
    from HSAMSegmentLib.inference.result import SegmentationResult
    from HSAMSegmentLib.labels.segmentation import Segmentation
    from HSAMSegmentLib.measurement.table import Statistics
    from HSAMSegmentLib.training.data.cases import Case
    from HSAMSegmentLib.training.request import ValidationMetrics
    from HSAMSegmentLib.weights.loading import LoadedModel
    from HSAMSegmentLib.weights.store import Store
    from HSAMSegmentLib.weights.store_entries import ModelEntry

    Image = Union[sitk.Image, nibabel.spatialimages.SpatialImage, tuple[np.ndarray, Geometry]]
    Scan = Union[str, Path, Volume, Image]
    Labels = Union[str, Path, SegmentationResult, Segmentation, Image]

NO_POSTPROCESSING = PostprocessOptions(largest_piece=False, fill_holes=False, minimum_ml=0.0)


def segment(
    scan: Scan,
    model: str | Path | LoadedModel | FinetunedModel = "",
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
        model: a model ID, a file, a loaded model or a result of `finetune`; "" if only one model fits the scan.
        organs: names of the structures to keep; default: all.
        roi: voxel box (i0, i1, j0, j1, k0, k1), upper bounds excluded; default: the whole scan.
        series: UID, number or description of a DICOM series in a folder.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "full" (float32) or "mixed".
        tta: apply test-time augmentation and multi-planar averaging if the model asks for them.
        postprocess: remove small and stray components and fill holes.
        on_progress: called with `Progress`: a fraction and the estimated remaining time.
        cancel: call its `cancel()` from another thread to stop within a second.
        store: where models are looked up; default: the user's model store.

    Returns:
        Labels on the grid of the scan, with volumes in mL and confidences.

    Raises:
        HSAMSegmentError: with one sentence on the cause and the remedy; CancelledError after a cancel.
    """
    from HSAMSegmentLib.images.volume import VolumeInput
    from HSAMSegmentLib.io.volume_files import volume_of
    from HSAMSegmentLib.weights.loading import LoadedModel
    from HSAMSegmentLib.workflows.context import Context, progress_only
    from HSAMSegmentLib.workflows.segment.model_cache import ModelCache
    from HSAMSegmentLib.workflows.segment.segment_request import SegmentRequest
    from HSAMSegmentLib.workflows.segment.segment_scan import segment_scan

    if isinstance(model, FinetunedModel):
        model = model.model
    loaded = model if isinstance(model, LoadedModel) else None
    path, volume = (str(scan), None) if isinstance(scan, (str, Path)) else ("", volume_of(scan))
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
    return segment_scan(request, Context(progress_only(on_progress), cancel or CancelToken(), shared=shared), volume)


def finetune(
    cases: Sequence[tuple[Scan, Labels]],
    *,
    minutes: float | None = None,
    epochs: int | None = None,
    validation: Sequence[tuple[Scan, Labels]] = (),
    start_from: str | Path = "",
    encoder: str = "",
    head: str = "",
    names: dict[int, str] | None = None,
    title: str = "",
    seed: int = 0,
    device: str = "auto",
    on_progress: Callable[[Progress], None] | None = None,
    on_validation: Callable[[ValidationMetrics], None] | None = None,
    cancel: CancelToken | None = None,
) -> FinetunedModel:
    """Fine-tune a model on labeled scans.

    Args:
        cases: pairs of a scan (as for `segment`) and its labels: a file, a result of `segment`, a `Segmentation`, a
            SimpleITK or nibabel label map, or an array (k, j, i) with its `Geometry`. One pair is enough.
        minutes: training time; 10 if neither this nor `epochs` is given.
        epochs: passes over the slices, instead of `minutes`.
        validation: pairs for selecting the best checkpoint; by default, slices of the training scans are held out.
        start_from: ID or file of the model to start from; "scratch" for random weights; "" for a default.
        encoder: ID of an image encoder; default: that of the starting model.
        head: "hsam", "autosam", "cnn" or "linear"; default: that of the starting model.
        names: names of label values, for label maps without names.
        title: title of the new model.
        seed: random seed; with `epochs`, the same seed gives the same weights on the same machine.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        on_progress: called with `Progress`: a fraction and the estimated remaining time.
        on_validation: called with the loss and the Dice of each validation.
        cancel: call its `cancel()` from another thread to stop; the best weights so far are returned.

    Returns:
        The model in memory, with `save()`, `metrics` and `labels`; pass it to `segment`.

    Raises:
        TrainingError: if the labels cannot be used, or the loss is not finite.
        HSAMSegmentError: if a scan, its labels or the starting model cannot be read; CancelledError if canceled
            before the first step.
    """
    from tempfile import TemporaryDirectory

    from HSAMSegmentLib.training.finetune import finetune as train
    from HSAMSegmentLib.training.request import FinetuneRequest, ValidationMetrics

    def on_event(event: object) -> None:
        if on_validation is not None and isinstance(event, ValidationMetrics):
            on_validation(event)

    with TemporaryDirectory(prefix="hsam-finetune-") as folder:
        request = FinetuneRequest(
            output=Path(folder) / "model.safetensors",
            title=title,
            head=head,
            encoder=encoder,
            start_from=str(start_from),
            minutes=minutes,
            epochs=epochs,
            seed=seed,
            device=device,
            cache_folder=Path(folder),
        )
        result = train(
            request,
            cases=[_case(image, labels, names) for image, labels in cases],
            validation=[_case(image, labels, names) for image, labels in validation],
            progress=on_progress or _ignore,
            events=on_event,
            cancel=cancel,
        )
    if result.model is None:
        raise TrainingError("The training ended without a model.")
    result.model.network.half().float()  # as saved, so that both segment alike
    return FinetunedModel(
        model=result.model,
        metrics=result.dice,
        validated_on=result.validated_on,
        steps=result.steps,
        seconds=result.seconds,
        stopped=result.stopped,
        notes=result.notes,
        history=result.history,
    )


def evaluate(
    prediction: Labels,
    reference: Labels,
    *,
    structures: Sequence[str] = (),
    names: dict[int, str] | None = None,
    convention: str = "ours",
) -> Evaluation:
    """Compare a segmentation with a reference, structure by structure.

    Args:
        prediction: the segmentation to judge: a file, a result of `segment`, a `Segmentation`, a SimpleITK or
            nibabel label map, or an array (k, j, i) with its `Geometry`.
        reference: the ground truth.
        structures: names to compare; default: all.
        names: names of label values, for label maps without names.
        convention: "ours" (distances in mm) or "hsam" (distances in voxels, as in the papers' tables).

    Returns:
        Dice, Jaccard, HD95, ASD and volumes of each structure.

    Raises:
        HSAMSegmentError: if a file cannot be read, or there is nothing to compare.
    """
    from HSAMSegmentLib.evaluation.metrics import compare

    if isinstance(prediction, (str, Path)) and isinstance(reference, (str, Path)):
        from HSAMSegmentLib.labels.segmentation_files import read_two_segmentations

        first, second = read_two_segmentations(prediction, reference, names=names)
    elif isinstance(prediction, (str, Path)):
        second = _labels(reference, None, names)
        first = _labels(prediction, second.geometry, names)
    else:
        first = _labels(prediction, None, names)
        second = _labels(reference, first.geometry, names)
    return Evaluation(compare(first, second, convention, organs=tuple(structures)))


def measure(labels: Labels, scan: Scan | None = None) -> Statistics:
    """Measure volume, surface, position, shape and intensities of each structure.

    Args:
        labels: a file, a result of `segment`, or a `Segmentation`, for example a corrected one.
        scan: as for `segment`; needed for intensities only.

    Returns:
        One row per structure.

    Raises:
        HSAMSegmentError: if a file cannot be read, or the labels do not belong to the scan.
    """
    from HSAMSegmentLib.inference.result import SegmentationResult
    from HSAMSegmentLib.io.volume_files import volume_of
    from HSAMSegmentLib.labels.grids import resample_labels
    from HSAMSegmentLib.measurement.scan import measure_scan
    from HSAMSegmentLib.measurement.table import Statistics, table_rows

    volume = None if scan is None else volume_of(scan)
    segmentation = _labels(labels, None if volume is None else volume.geometry, None)
    if volume is not None:
        segmentation = resample_labels(segmentation, volume.geometry)
    known = labels.labels if isinstance(labels, SegmentationResult) else ()
    measured = measure_scan(segmentation, volume, confidences={item.label.name: item.confidence for item in known})
    name = segmentation.name if volume is None else volume.name
    model = labels.model_id if isinstance(labels, SegmentationResult) else ""
    return Statistics(tuple(table_rows(name, measured, model=model)))


def read_statistics(folder: str | Path) -> Statistics:
    """Read the statistics of all scans segmented into a folder from the reports beside the results.

    Raises:
        RequestError: if the folder does not exist or holds no report.
    """
    from HSAMSegmentLib.measurement.table import Statistics
    from HSAMSegmentLib.workflows.results.folder_statistics import folder_rows

    rows, notes = folder_rows(Path(folder))
    return Statistics(tuple(rows), tuple(notes))


def radiomics(labels: Labels, scan: Scan, structures: Sequence[str] = (), **settings: Any) -> pandas.DataFrame:
    """Compute radiomics features with MIRP (`pip install 'hsamsegment[radiomics]'`).

    Args:
        labels: as for `measure`.
        scan: as for `segment`.
        structures: names to measure; default: all. A large structure takes minutes.
        settings: passed to `mirp.extract_features`, for example `new_spacing=1.0`.

    Returns:
        One row per structure found, one column per feature.

    Raises:
        HSAMSegmentError: if MIRP is missing, a file cannot be read, or the labels do not belong to the scan.
    """
    from HSAMSegmentLib.io.volume_files import volume_of
    from HSAMSegmentLib.labels.grids import resample_labels
    from HSAMSegmentLib.measurement.radiomics import radiomics_features

    volume = volume_of(scan)
    segmentation = resample_labels(_labels(labels, volume.geometry, None), volume.geometry)
    return radiomics_features(segmentation, volume, structures, **settings)


def read_segmentation(path: str | Path) -> Segmentation:
    """Read labels and their names from a file.

    Raises:
        VolumeError: if the file cannot be read, or is not a segmentation.
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
    """List the models and encoders that are installed or can be downloaded, without loading any."""
    from HSAMSegmentLib.weights.store import Store

    return (store or Store()).models()


def load_model(reference: str | Path, *, store: Store | None = None) -> LoadedModel:
    """Load a model by ID or file, to segment many scans with it.

    Raises:
        ModelNotFoundError: if the model is not on this computer; the message says how to get it.
        CheckpointError: if the file is damaged, unsafe, of an unknown kind, or holds an encoder only.
    """
    from HSAMSegmentLib.weights.loading import load_model as load

    return load(reference, store=store)


def _labels(source: Labels, grid: Geometry | None, names: dict[int, str] | None) -> Segmentation:
    """Read labels from any source; `names` apply to label maps without names.

    Raises:
        RequestError: if the kind of source is unknown.
        VolumeError: if the source cannot be read, or is not a segmentation.
    """
    from HSAMSegmentLib.inference.result import SegmentationResult
    from HSAMSegmentLib.labels.segmentation import Segmentation
    from HSAMSegmentLib.labels.segmentation_files import with_names

    if isinstance(source, (str, Path)):
        return with_names(Path(source), names, grid)
    if isinstance(source, SegmentationResult):
        return source.segmentation
    return source if isinstance(source, Segmentation) else _labels_in_memory(source, names)


def _labels_in_memory(source: Image, names: dict[int, str] | None) -> Segmentation:
    from HSAMSegmentLib.io.volume_files import array_and_geometry
    from HSAMSegmentLib.labels.label_maps import labels_of_values
    from HSAMSegmentLib.labels.segmentation import Segmentation

    found = array_and_geometry(source)
    if found is None:
        raise RequestError(
            "Labels are a path, a result of segment(), a Segmentation, a SimpleITK or nibabel image, or an array with "
            f"its Geometry, not {type(source)}."
        )
    array, labels, notes = labels_of_values(found[0], "labels", names=names)
    return Segmentation(array, found[1], labels, notes=notes)


def _case(image: Scan, labels: Labels, names: dict[int, str] | None) -> Case:
    """Read a labeled scan from any two sources."""
    from HSAMSegmentLib.io.volume_files import volume_of
    from HSAMSegmentLib.training.data.cases import make_case

    volume = volume_of(image)
    return make_case(volume, _labels(labels, volume.geometry, names))


def _ignore(progress: Progress) -> None:
    """Ignore a progress report."""
