"""The job that segments the organs of one scan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from HSAMSegmentLib.images.modality import guess_modality
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.options import selected_values
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.inference.result import LabelResult, SegmentationResult
from HSAMSegmentLib.io.volume_files import finite_array, read_volume
from HSAMSegmentLib.labels.label_set import LARGEST_VALUE, LabelSet
from HSAMSegmentLib.report.segmentation_report import make_report
from HSAMSegmentLib.runtime.progress import CancelToken, Progress
from HSAMSegmentLib.weights.loading import LoadedModel, load_model
from HSAMSegmentLib.workflows.events import Preview, Result
from HSAMSegmentLib.workflows.requests import SegmentRequest, VolumeInput
from HSAMSegmentLib.workflows.run import Emit, JobContext
from HSAMSegmentLib.workflows.segment.outcome import OrganOutcome, SegmentOutcome, write_labels

_MODEL = "model"


def segment(request: SegmentRequest, emit: Emit, cancel: CancelToken, context: JobContext) -> Result:
    """Segment; the result holds the JSON values of a `SegmentOutcome`, its files are in the output folder.

    Raises:
        HSAMSegmentError: from reading, loading or segmenting.
    """
    emit(Progress(0.0, "Reading the scan"))
    volume = open_volume(request.input)
    cancel.raise_if_cancelled()
    emit(Progress(0.0, "Loading the model"))
    segmenter = Segmenter(warm_model(request.model, context), device=request.device, options=request.options)
    folder = Path(request.output_folder)
    preview = _live_preview(request, volume, segmenter.model.manifest.labels, emit)
    result = segmenter.segment(volume, progress=emit, cancel=cancel, **preview)
    report = make_report(result, volume=volume, manifest=segmenter.model.manifest, options=request.options)
    outcome = replace(_outcome(result, folder), report=report)
    hook = context.hook("surfaces") if request.surfaces and outcome.found else None
    if hook is not None:
        emit(Progress(1.0, "Computing surfaces"))
        outcome = _with_surfaces(outcome, hook(outcome, folder, cancel))
    return Result(outcome.to_json())


def open_volume(source: VolumeInput) -> Volume:
    """The scan that a request names.

    Raises:
        VolumeError: if it cannot be read or used.
    """
    if source.path:
        return read_volume(Path(source.path))
    array, notes = finite_array(np.load(source.array_file, mmap_mode="r"))
    modality = source.modality or guess_modality(array)
    return Volume(array, source.geometry, name=source.name, modality=modality, notes=notes, series=source.series)


def warm_model(reference: str, context: JobContext) -> LoadedModel:
    """The model of the last job if it is the same one, from a file that did not change since, else loaded now."""
    kept = context.warm.pop(_MODEL, None)
    if kept is None or kept[:2] != (reference, _stamp(kept[2].path)):
        kept = None  # two models at a time may not fit into memory
        model = load_model(reference)
        kept = (reference, _stamp(model.path), model)
    context.warm[_MODEL] = kept
    return kept[2]


def _stamp(path: Path) -> tuple[int, int]:
    """Tells whether a file of weights changed since it was loaded."""
    if not path.is_file():
        return (0, 0)
    status = path.stat()
    return (status.st_mtime_ns, status.st_size)


def _live_preview(request: SegmentRequest, volume: Volume, labels: LabelSet, emit: Emit) -> dict:
    """Arguments that let the segmenter tell finished slices, which the GUI looks at in a file.

    The segmenter's own array holds all organs of the model until the end, so the wanted ones are copied out of it.
    """
    if not request.preview:
        return {}
    path = Path(request.output_folder) / "preview.npy"
    shown = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=volume.array.shape)
    table = np.zeros(LARGEST_VALUE + 1, dtype=np.uint8)
    wanted = list(selected_values(labels, request.options.organs))
    table[wanted] = wanted

    def announce(found: np.ndarray, axis: int, slices: tuple[int, ...]) -> None:
        for index in slices:
            place = tuple(index if other == axis else slice(None) for other in range(3))
            shown[place] = table[found[place]]
        emit(Preview(axis, slices, str(path)))

    return {"on_slices": announce}


def _outcome(result: SegmentationResult, folder: Path) -> SegmentOutcome:
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
        seconds=result.timings_s.get("total", 0.0),
    )


def _organ(item: LabelResult) -> OrganOutcome:
    if not item.slices:
        return OrganOutcome(item.label)
    largest = max(item.slices, key=lambda entry: entry.voxels)
    uncertain = item.least_certain or largest
    return OrganOutcome(item.label, item.volume_ml, item.confidence, largest.position_ijk, uncertain.position_ijk)


def _with_surfaces(outcome: SegmentOutcome, files: dict[int, str]) -> SegmentOutcome:
    organs = (replace(organ, surface_file=files.get(organ.label.value, "")) for organ in outcome.organs)
    return replace(outcome, organs=tuple(organs))
