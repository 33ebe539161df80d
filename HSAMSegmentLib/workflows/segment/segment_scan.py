"""Segment one scan: the common path from a request to labels for every caller. Files are written atomically."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from HSAMSegmentLib.export.formats import format_of
from HSAMSegmentLib.export.source_images import Origin
from HSAMSegmentLib.images.volume import Volume, VolumeInput, guess_modality
from HSAMSegmentLib.inference.options import selected_values
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.inference.result import SegmentationResult
from HSAMSegmentLib.io.volume_files import finite_array, read_volume
from HSAMSegmentLib.labels.label_set import LARGEST_VALUE, LabelSet
from HSAMSegmentLib.report.segmentation_report import make_report
from HSAMSegmentLib.runtime.devices import choose_device
from HSAMSegmentLib.runtime.progress import Progress, ProgressCallback, interruptible
from HSAMSegmentLib.runtime.threads import FreeCores
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.events import Preview
from HSAMSegmentLib.workflows.segment.result_files import FinishedScan, check_output_files, write_outputs
from HSAMSegmentLib.workflows.segment.segment_request import SegmentOutcome, SegmentRequest, stored_outcome

_READING_FRACTION = 0.02
_WRITING_FRACTION = 0.97


def run(request: SegmentRequest, context: Context) -> SegmentOutcome:
    """Segment, and store labels and surfaces in `request.output_folder` for another process.

    Raises:
        HSAMSegmentError: as `segment_scan`.
    """
    finished = _segment(request, context, None)
    report = make_report(
        finished.result,
        volume=finished.volume,
        manifest=finished.segmenter.model.manifest,
        options=request.options,
    )
    folder = Path(request.output_folder)
    outcome = replace(stored_outcome(finished.result, folder), report=report)
    hook = context.hook("surfaces") if request.surfaces and outcome.found else None
    if hook is None:
        return outcome
    context.emit(Progress(1.0, "Computing surfaces"))
    return outcome.with_surfaces(hook(outcome, folder, context.cancel))


def segment_scan(request: SegmentRequest, context: Context, volume: Volume | None = None) -> SegmentationResult:
    """Segment one scan and write the files that the request names.

    Args:
        request: the request.
        context: receives progress, is checked for a cancel (which takes effect within a second; nothing is written
            then), and keeps the model.
        volume: the scan, if it is in memory; otherwise it is read from `request.input`.

    Returns:
        Labels on the scan's grid, with statistics.

    Raises:
        OutputError: before any work, if an output exists, has an unknown suffix or cannot be written.
        VolumeError: if the scan cannot be read.
        RequestError, CheckpointError, DeviceError, CancelledError: from choosing, loading and segmenting.
    """
    return _segment(request, context, volume).result


def open_volume(source: VolumeInput) -> Volume:
    """Open the scan of a request.

    Raises:
        VolumeError: if it cannot be read or used.
    """
    if source.path:
        return read_volume(Path(source.path), series=source.series or None)
    array, notes = finite_array(np.load(source.array_file, mmap_mode="r"))
    modality = source.modality or guess_modality(array)
    return Volume(
        array, source.required_geometry, name=source.name, modality=modality, notes=notes, series=source.series
    )


def _segment(request: SegmentRequest, context: Context, volume: Volume | None) -> FinishedScan:
    files, cancel, free_cores = request.files, context.cancel, FreeCores()
    if files is not None:
        check_output_files(files, source=Path(request.input.path) if request.input.path else None)
    choose_device(request.device)
    interruptible(lambda: _check_model(request, context), cancel)
    context.emit(Progress(0.0, "Reading the scan"))
    cancel.raise_if_cancelled()
    if volume is None:
        volume = interruptible(lambda: open_volume(request.input), cancel)
    if files is not None:
        chosen = format_of(files.segmentation, files.format)
        chosen.check(files.segmentation, volume.geometry, Origin(volume.dicom_files))
    finished = _predict(request, context, volume, free_cores)
    if files is not None:
        context.emit(Progress(_WRITING_FRACTION, "Writing the results"))
        write_outputs(finished, files, cancel)
    context.emit(Progress(1.0, "Done", eta_seconds=0.0))
    return finished


def _check_model(request: SegmentRequest, context: Context) -> None:
    """Load a named model before the scan is read, so that a wrong name or organ fails fast."""
    model = context.models.named(request.model)
    if model is not None:
        selected_values(model.manifest.labels, request.options.organs)


def _predict(request: SegmentRequest, context: Context, volume: Volume, free_cores: FreeCores) -> FinishedScan:
    """Load and run the model; the sentence on how it was chosen becomes the first warning."""
    context.emit(Progress(0.0, "Loading the model"))
    models, options = context.models, request.options
    model, sentence = interruptible(lambda: models.for_volume(volume, request.model, options.organs), context.cancel)
    segmenter = Segmenter(model, device=request.device, options=options)
    context.cancel.raise_if_cancelled()
    result = segmenter.segment(
        volume,
        progress=_inner(context.progress) if request.files is not None else context.progress,
        cancel=context.cancel,
        free_cores=free_cores,
        **_live_preview(request, volume, model.manifest.labels, context),
    )
    if sentence:
        result = replace(result, warnings=(sentence, *result.warnings))
    context.cancel.raise_if_cancelled()
    wants_report = request.files is not None and request.files.report is not None
    return FinishedScan(request, volume, result, segmenter, models.hash_of(model.manifest.id) if wants_report else "")


def _live_preview(request: SegmentRequest, volume: Volume, labels: LabelSet, context: Context) -> dict[str, Any]:
    """Arguments that make the segmenter report finished slices, which the panel shows from a file.

    The segmenter's own array holds all organs of the model until the end, so the requested ones are copied out of it.
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
        context.emit(Preview(axis, slices, str(path)))

    return {"on_slices": announce}


def _inner(progress: ProgressCallback) -> ProgressCallback:
    """Scale the segmenter's progress to the part between reading and writing."""
    span = _WRITING_FRACTION - _READING_FRACTION

    def report(inner: Progress) -> None:
        progress(replace(inner, fraction=_READING_FRACTION + span * inner.fraction))

    return report
