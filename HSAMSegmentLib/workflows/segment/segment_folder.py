"""A folder of scans to a folder of segmentations: one bad scan does not stop the rest, what is finished stays."""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from HSAMSegmentLib.errors import CancelledError, HSAMSegmentError, RequestError
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.io.scan_folder import Scan, find_scans
from HSAMSegmentLib.labels.segmentation_files import SEGMENTATION_OUTPUT_SUFFIXES
from HSAMSegmentLib.report.segmentation_report import REPORT_SUFFIX, read_report
from HSAMSegmentLib.runtime.atomic_files import atomic_output, make_folder
from HSAMSegmentLib.runtime.progress import CancelToken, Progress, ProgressCallback, ignore_progress, interruptible
from HSAMSegmentLib.weights.loading import LoadedModel
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.workflows.segment.model_cache import WarmModels
from HSAMSegmentLib.workflows.segment.replace_results import mend_interrupted
from HSAMSegmentLib.workflows.segment.result_records import comparable_options, same_input, same_output
from HSAMSegmentLib.workflows.segment.segment_file import OutputFiles, segment_file

logger = logging.getLogger(__name__)

SUMMARY_NAME = "summary.csv"
PREVIEW_SUFFIX = ".preview.png"

WAITING = "not started"
DONE = "done"
DONE_BEFORE = "done before"
FAILED = "failed"
CANCELLED = "cancelled"

_COLUMNS = ("scan", "status", "message", "output", "model", "found", "seconds")


@dataclass(frozen=True)
class ScanOutcome:
    """What became of one scan.

    Attributes:
        scan: the scan.
        status: `DONE`, `DONE_BEFORE` (an earlier run did it), `FAILED`, `CANCELLED` or `WAITING`.
        message: the error of a failed scan, the warnings of a finished one.
        output: its segmentation file.
        model: id of the model that was used, empty if it did not come to that.
        found: names of the labels that were found.
        seconds: how long it took.
        volumes_ml: name and volume of every label that was looked for, 0 if it was not found.
    """

    scan: Scan
    status: str
    message: str = ""
    output: Path | None = None
    model: str = ""
    found: tuple[str, ...] = ()
    seconds: float = 0.0
    volumes_ml: tuple[tuple[str, float], ...] = ()


OnScan = Callable[[int, int, ScanOutcome], None]
"""Told of every scan before the first one is segmented, then what became of each: its index, how many, and what."""


@dataclass(frozen=True)
class FolderResult:
    """What became of a folder.

    Attributes:
        scans: one entry per scan, in the order of the summary.
        summary: the CSV file that says the same.
    """

    scans: tuple[ScanOutcome, ...]
    summary: Path

    def count(self, status: str) -> int:
        """How many scans have a status."""
        return sum(item.status == status for item in self.scans)


def segment_folder(
    source: str | Path,
    output: str | Path,
    *,
    model: str | Path | LoadedModel | None = None,
    store: Store | None = None,
    device: str = "auto",
    options: SegmentOptions | None = None,
    suffix: str = ".seg.nrrd",
    preview: bool = False,
    overwrite: bool = False,
    progress: ProgressCallback = ignore_progress,
    on_scan: OnScan | None = None,
    cancel: CancelToken | None = None,
) -> FolderResult:
    """Segment every scan of a folder.

    Each scan gets a segmentation and a report beside it (and a preview, if wanted) at the place in `output` that it has
    in `source`. A scan that an earlier run finished with the same model, options and contents is not done again. If
    any of these changed it is done again, unless its segmentation was changed since it was written (corrected by hand,
    say): that is kept and said, unless `overwrite` is given.

    Args:
        source: folder with volume files and DICOM series, at any depth.
        output: folder for the results, created if needed.
        model: id, file or loaded model; None to choose one for each scan.
        store: where models are looked up.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        options: organs, precision, post-processing.
        suffix: format of the segmentations.
        preview: whether to write a picture per scan.
        overwrite: whether everything is done again and replaced, whatever is there.
        progress: receives fractions of the whole folder.
        on_scan: told of all scans at the start, and after each scan.
        cancel: what is finished stays, the summary says what is not.

    Returns:
        What became of each scan; the summary CSV is written after each of them.

    Raises:
        RequestError: if there is no scan, or if the options do not fit.
        OutputError: if the output folder cannot be written to.
        ModelNotFoundError, CheckpointError, DeviceError: if the named model or device cannot be used at all.
        CancelledError: on cancel.
    """
    if suffix not in SEGMENTATION_OUTPUT_SUFFIXES:
        raise RequestError(f"Segmentations end in {', '.join(SEGMENTATION_OUTPUT_SUFFIXES)}, not in '{suffix}'.")
    cancel = cancel or CancelToken()
    scans = interruptible(lambda: find_scans(source, ignored=Path(output)), cancel)
    warm = interruptible(lambda: WarmModels(model, store=store, device=device, options=options), cancel)
    run = _FolderRun(make_folder(Path(output)), scans, warm, suffix, preview, overwrite, cancel, on_scan)
    return run.all(progress)


@dataclass(frozen=True)
class _Earlier:
    """What an earlier run left for a scan.

    Attributes:
        up_to_date: whether it is what this run would make.
        model: id of the model that made it.
        volumes_ml: name and volume of every label that was looked for.
    """

    up_to_date: bool
    model: str = ""
    volumes_ml: tuple[tuple[str, float], ...] = ()

    @property
    def found(self) -> tuple[str, ...]:
        """Names of the labels that were found."""
        return tuple(name for name, volume in self.volumes_ml if volume > 0)


class _FolderRun:
    """One pass over the scans of a folder."""

    def __init__(
        self,
        folder: Path,
        scans: Sequence[Scan],
        warm: WarmModels,
        suffix: str,
        preview: bool,
        overwrite: bool,
        cancel: CancelToken,
        on_scan: OnScan | None = None,
    ) -> None:
        self._folder = folder
        self._warm = warm
        self._suffix = suffix
        self._preview = preview
        self._overwrite = overwrite
        self._cancel = cancel
        self._on_scan = on_scan
        self._outcomes = [ScanOutcome(scan, WAITING, output=self._files(scan).segmentation) for scan in scans]
        self._summary = folder / SUMMARY_NAME

    def all(self, progress: ProgressCallback) -> FolderResult:
        """Segment scan after scan; the summary is right after each of them, and after a cancel."""
        self._write_summary()
        for index, waiting in enumerate(self._outcomes):
            self._tell(index, waiting)
        clock = _FolderClock(progress, len(self._outcomes))
        for index, waiting in enumerate(self._outcomes):
            started = time.perf_counter()
            try:
                self._cancel.raise_if_cancelled()
                outcome = self._one(waiting, clock.for_scan(index, waiting.scan.name))
            except CancelledError:
                self._note(index, replace(waiting, status=CANCELLED))
                raise
            except Exception as error:  # one bad scan, whatever is bad about it, must not stop the rest
                logger.warning("%s failed", waiting.scan.path, exc_info=True)
                outcome = replace(waiting, status=FAILED, message=_sentence(error))
            self._note(index, replace(outcome, seconds=time.perf_counter() - started))
        progress(Progress(1.0, "Done", eta_seconds=0.0))
        return FolderResult(tuple(self._outcomes), self._summary)

    def _one(self, waiting: ScanOutcome, progress: ProgressCallback) -> ScanOutcome:
        scan, files = waiting.scan, self._files(waiting.scan)
        if scan.problem:
            raise RequestError(scan.problem)
        mend_interrupted(files.segmentation, files.report)
        earlier = None if self._overwrite else self._earlier(scan, files)
        if earlier is not None and earlier.up_to_date:
            progress(Progress(1.0, "Done before"))
            known = {"model": earlier.model, "found": earlier.found, "volumes_ml": earlier.volumes_ml}
            return replace(waiting, status=DONE_BEFORE, **known)
        make_folder(files.segmentation.parent)
        result = segment_file(
            scan.path,
            files.segmentation,
            series=scan.series,
            preview=files.preview,
            report=files.report,
            overwrite=self._overwrite or earlier is not None,
            warm=self._warm,
            progress=progress,
            cancel=self._cancel,
        )
        return replace(
            waiting,
            status=DONE,
            message=" ".join(result.warnings),
            model=result.model_id,
            found=tuple(item.label.name for item in result.found),
            volumes_ml=tuple((item.label.name, item.volume_ml) for item in result.labels),
        )

    def _earlier(self, scan: Scan, files: OutputFiles) -> _Earlier | None:
        """What an earlier run left for this scan and may be kept or replaced; None if it left nothing.

        Raises:
            RequestError: if there is something that is not ours to replace.
        """
        if not files.segmentation.exists():
            return _Earlier(up_to_date=False) if files.report.exists() else None
        if not files.report.exists():
            raise RequestError(f"{files.segmentation} exists and is not from an earlier run; it was left alone.")
        report = read_report(files.report)
        record = report.get("record", {})
        same_work = self._is_fresh(record, scan)
        fresh = same_work and (files.preview is None or files.preview.exists())
        if not fresh and not same_output(record, files.segmentation):
            if same_work:
                raise RequestError(
                    f"{files.segmentation.name} was changed since it was written, and its preview is missing; it was "
                    "left alone. Move it away, allow overwriting, or ask for no previews."
                )
            raise RequestError(
                f"{files.segmentation.name} was changed since it was written, and scan, model or options are others "
                "now; it was left alone. Move it away, or allow overwriting."
            )
        volumes = tuple((item["name"], float(item.get("volume_ml", 0.0))) for item in report.get("labels", []))
        return _Earlier(fresh, record.get("model", {}).get("id", ""), volumes)

    def _is_fresh(self, record: dict, scan: Scan) -> bool:
        recorded = record.get("model", {})
        model_id = self._warm.named_id() or recorded.get("id", "")
        return (
            recorded.get("id") == model_id
            and bool(recorded.get("sha256"))
            and recorded.get("sha256") == self._warm.hash_of(model_id)
            and record.get("options") == comparable_options(self._warm.options)
            and same_input(record, scan.path, scan.series, self._cancel)
        )

    def _files(self, scan: Scan) -> OutputFiles:
        base = self._folder / scan.name
        return OutputFiles(
            base.with_name(base.name + self._suffix),
            base.with_name(base.name + PREVIEW_SUFFIX) if self._preview else None,
            base.with_name(base.name + REPORT_SUFFIX),
        )

    def _note(self, index: int, outcome: ScanOutcome) -> None:
        self._outcomes[index] = outcome
        self._write_summary()
        self._tell(index, outcome)

    def _tell(self, index: int, outcome: ScanOutcome) -> None:
        if self._on_scan is not None:
            self._on_scan(index, len(self._outcomes), outcome)

    def _write_summary(self) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for item in self._outcomes:
            output = item.output if item.status in (DONE, DONE_BEFORE) else None
            shown = "" if output is None else output.relative_to(self._folder).as_posix()
            found = "; ".join(item.found)
            writer.writerow(
                (item.scan.name, item.status, item.message, shown, item.model, found, f"{item.seconds:.1f}")
            )
        with atomic_output(self._summary, overwrite=True) as stream:
            stream.write(text.getvalue().encode("utf-8", "backslashreplace"))


class _FolderClock:
    """Turns the progress of one scan into that of the folder."""

    def __init__(self, report: ProgressCallback, count: int) -> None:
        self._report = report
        self._count = count
        self._started = time.monotonic()

    def for_scan(self, index: int, name: str) -> ProgressCallback:
        """A callback for the scan with this index."""

        def report(inner: Progress) -> None:
            fraction = (index + inner.fraction) / self._count
            elapsed = time.monotonic() - self._started
            eta = elapsed * (1.0 - fraction) / fraction if fraction >= 0.02 else None
            place = f"scan {index + 1} of {self._count}, {name}"
            detail = f"{place}, {inner.detail}" if inner.detail else place
            self._report(Progress(fraction, inner.stage, detail, eta))

        return report


def _sentence(error: Exception) -> str:
    if isinstance(error, HSAMSegmentError):
        return str(error)
    if isinstance(error, MemoryError):
        return "Not enough memory for this scan."
    return f"Something unexpected happened ({type(error).__name__}: {error})."
