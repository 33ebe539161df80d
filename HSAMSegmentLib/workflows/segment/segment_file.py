"""From a scan on disk to organs on disk: everything is checked before the work, nothing is left half-written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.inference.result import SegmentationResult
from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.labels.label_names import names_path
from HSAMSegmentLib.labels.segmentation_files import output_suffix, require_geometry_fits, write_segmentation
from HSAMSegmentLib.report.preview_picture import check_preview_path, write_preview
from HSAMSegmentLib.report.segmentation_report import make_report, write_report
from HSAMSegmentLib.runtime.atomic_files import check_outputs
from HSAMSegmentLib.runtime.progress import CancelToken, Progress, ProgressCallback, ignore_progress, interruptible
from HSAMSegmentLib.weights.loading import LoadedModel
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.workflows.segment.model_cache import WarmModels
from HSAMSegmentLib.workflows.segment.replace_results import finished_file, mend_interrupted, put_in_place
from HSAMSegmentLib.workflows.segment.result_records import make_record

_READING_FRACTION = 0.02
_WRITING_FRACTION = 0.97


@dataclass(frozen=True)
class OutputFiles:
    """Where the results of one scan go.

    Attributes:
        segmentation: label file; its suffix is the format.
        preview: picture, or None.
        report: JSON report, or None.
    """

    segmentation: Path
    preview: Path | None = None
    report: Path | None = None

    def all(self) -> tuple[Path, ...]:
        """Every file that is asked for."""
        return tuple(path for path in (self.segmentation, self.preview, self.report) if path is not None)


def segment_file(
    source: str | Path,
    output: str | Path,
    *,
    model: str | Path | LoadedModel | None = None,
    store: Store | None = None,
    series: str | None = None,
    device: str = "auto",
    options: SegmentOptions | None = None,
    preview: str | Path | None = None,
    report: str | Path | None = None,
    overwrite: bool = False,
    warm: WarmModels | None = None,
    progress: ProgressCallback = ignore_progress,
    cancel: CancelToken | None = None,
) -> SegmentationResult:
    """Segment one scan and write the results.

    Args:
        source: volume file or DICOM folder.
        output: .seg.nrrd, .nrrd, .nii.gz, .nii or .mha file.
        model: id, file or loaded model; None to take the only installed one that fits.
        store: where models are looked up, None for the default store.
        series: which series of a DICOM folder that has several.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        options: organs, region, precision, post-processing.
        preview: picture to write, or None.
        report: JSON report to write, or None.
        overwrite: whether existing outputs may be replaced.
        warm: models kept from scan to scan; then `model`, `store`, `device` and `options` are its own.
        progress: receives fractions with an ETA.
        cancel: answered within a second; nothing is written then.

    Returns:
        The result that was written.

    Raises:
        OutputError: before any work, if an output exists, has an unknown suffix or cannot be written.
        VolumeError: if the scan cannot be read.
        RequestError, CheckpointError, DeviceError, CancelledError: as from choosing, loading and segmenting.
    """
    files = OutputFiles(Path(output), _optional(preview), _optional(report))
    mend_interrupted(files.segmentation, files.report)
    check_output_files(files, source=Path(source), overwrite=overwrite)
    cancel = cancel or CancelToken()
    if warm is None:
        warm = interruptible(lambda: WarmModels(model, store=store, device=device, options=options), cancel)
    progress(Progress(0.0, "Reading the scan"))
    cancel.raise_if_cancelled()
    volume = interruptible(lambda: read_volume(source, series=series), cancel)
    require_geometry_fits(files.segmentation, volume.geometry)
    segmenter, result = _segment(volume, warm, progress, cancel)
    progress(Progress(_WRITING_FRACTION, "Writing the results"))
    finished = _Finished(Path(source), series, volume, result, segmenter, warm)
    _write_outputs(finished, files, overwrite, cancel)
    progress(Progress(1.0, "Done", eta_seconds=0.0))
    return result


def _segment(
    volume: Volume, warm: WarmModels, progress: ProgressCallback, cancel: CancelToken
) -> tuple[Segmenter, SegmentationResult]:
    """Load the model and let it work; the sentence on how it was chosen becomes the result's first warning."""
    cancel.raise_if_cancelled()
    progress(Progress(0.0, "Loading the model"))
    segmenter, sentence = interruptible(lambda: warm.segmenter_for(volume), cancel)
    cancel.raise_if_cancelled()
    result = segmenter.segment(volume, progress=_inner(progress), cancel=cancel)
    if sentence:
        result = replace(result, warnings=(sentence, *result.warnings))
    cancel.raise_if_cancelled()
    return segmenter, result


@dataclass(frozen=True)
class _Finished:
    """A scan that was segmented and is to be written."""

    source: Path
    series: str | None
    volume: Volume
    result: SegmentationResult
    segmenter: Segmenter
    warm: WarmModels


def _write_outputs(done: _Finished, files: OutputFiles, overwrite: bool, cancel: CancelToken) -> None:
    """Write everything, the segmentation under a temporary name that is exchanged for its own one last.

    So an interruption leaves no segmentation that no report accounts for, which a later run would not dare to replace.
    """
    manifest, segmentation = done.segmenter.model.manifest, done.result.segmentation
    with finished_file(files.segmentation) as temporary:
        write_segmentation(segmentation, temporary)
        if files.preview is not None:
            write_preview(done.volume, segmentation, files.preview, plane=manifest.slices.plane, overwrite=overwrite)
        content = None if files.report is None else _report(done, files, temporary, cancel)

        def write() -> None:
            if content is not None:
                write_report(content, files.report, overwrite=overwrite)

        put_in_place(temporary, files.segmentation, overwrite=overwrite, write_report=write)


def _report(done: _Finished, files: OutputFiles, content: Path, cancel: CancelToken) -> dict[str, Any]:
    manifest, options = done.segmenter.model.manifest, done.segmenter.options
    record = make_record(
        source=done.source,
        series=done.series,
        model_id=manifest.id,
        model_hash=done.warm.hash_of(manifest.id),
        options=options,
        output=files.segmentation,
        content=content,
        cancel=cancel,
    )
    return make_report(
        done.result,
        volume=done.volume,
        manifest=manifest,
        options=options,
        output=files.segmentation,
        record=record,
    )


def check_output_files(files: OutputFiles, *, source: Path, overwrite: bool) -> None:
    """Make sure, before any work, that every output can be written.

    Raises:
        OutputError: if one exists and may not be replaced, has an unknown suffix, or its folder cannot be written to.
        RequestError: if two outputs are the same file, or one is the scan itself.
    """
    suffix = output_suffix(files.segmentation)
    if files.preview is not None:
        check_preview_path(files.preview)
    names = () if suffix.endswith(".nrrd") else (names_path(files.segmentation),)
    check_outputs((*files.all(), *names), overwrite=overwrite, source=source)


def _inner(progress: ProgressCallback) -> ProgressCallback:
    """Put the segmenter's fractions between reading and writing."""
    span = _WRITING_FRACTION - _READING_FRACTION

    def report(inner: Progress) -> None:
        progress(replace(inner, fraction=_READING_FRACTION + span * inner.fraction))

    return report


def _optional(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
