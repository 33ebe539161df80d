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
from HSAMSegmentLib.export.formats import format_named
from HSAMSegmentLib.inference.options import selected_values
from HSAMSegmentLib.io.scan_folder import Scan, find_scans
from HSAMSegmentLib.report.segmentation_report import REPORT_SUFFIX, read_report
from HSAMSegmentLib.runtime.atomic_files import atomic_output, make_folder
from HSAMSegmentLib.runtime.devices import choose_device
from HSAMSegmentLib.runtime.progress import Progress, ProgressCallback, interruptible
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.inputs import VolumeInput
from HSAMSegmentLib.workflows.segment.folder_request import FolderRequest
from HSAMSegmentLib.workflows.segment.replace_results import mend_interrupted
from HSAMSegmentLib.workflows.segment.result_records import comparable_options, same_input, same_output
from HSAMSegmentLib.workflows.segment.segment_request import OutputFiles, SegmentRequest
from HSAMSegmentLib.workflows.segment.segment_scan import segment_scan

logger = logging.getLogger(__name__)

SUMMARY_NAME = "summary.csv"
PREVIEW_SUFFIX = ".preview.png"

WAITING = "not started"
DONE = "done"
DONE_BEFORE = "done before"
FAILED = "failed"
SKIPPED = "skipped"
CANCELLED = "cancelled"

_COLUMNS = ("scan", "status", "message", "output", "model", "found", "seconds")


@dataclass(frozen=True)
class ScanOutcome:
    """What became of one scan.

    Attributes:
        scan: the scan.
        status: `DONE`, `DONE_BEFORE` (an earlier run did it), `FAILED`, `SKIPPED` (no scan), `CANCELLED`
            or `WAITING`.
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


def segment_folder(request: FolderRequest, context: Context, on_scan: OnScan | None = None) -> FolderResult:
    """Segment every scan of a folder.

    Each scan gets a segmentation and a report beside it (and a preview, if wanted) at the place in `output` that it has
    in `source`. A scan that an earlier run finished with the same model, options and contents is not done again. If
    any of these changed it is done again, unless its segmentation was changed since it was written (corrected by hand,
    say): that is kept and said, unless `overwrite` is given.

    Args:
        request: what to do.
        context: receives progress of the whole folder; after a cancel what is finished stays, and the summary says
            what is missing.
        on_scan: told of all scans at the start, and after each scan.

    Returns:
        What became of each scan; the summary CSV is written after each of them.

    Raises:
        RequestError: if there is no scan, if the options do not fit, or if a package that the format needs is missing.
        OutputError: if the output folder cannot be written to.
        ModelNotFoundError, CheckpointError, DeviceError: if the named model or device cannot be used at all.
        CancelledError: on cancel.
    """
    format_named(request.suffix).require()
    scans = interruptible(lambda: find_scans(request.source, ignored=Path(request.output)), context.cancel)
    choose_device(request.device)
    model = interruptible(lambda: context.models.named(request.model), context.cancel)
    if model is not None:
        selected_values(model.manifest.labels, request.options.organs)
    make_folder(Path(request.output))
    return _FolderRun(request, context, scans, on_scan).all()


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
        self, request: FolderRequest, context: Context, scans: Sequence[Scan], on_scan: OnScan | None = None
    ) -> None:
        self._request = request
        self._context = context
        self._folder = Path(request.output)
        self._on_scan = on_scan
        self._outcomes = [ScanOutcome(scan, WAITING, output=self._files(scan).segmentation) for scan in scans]
        self._summary = self._folder / SUMMARY_NAME

    def all(self) -> FolderResult:
        """Segment scan after scan; the summary is right after each of them, and after a cancel."""
        self._write_summary()
        for index, waiting in enumerate(self._outcomes):
            self._tell(index, waiting)
        clock = _FolderClock(self._context.emit, len(self._outcomes))
        for index, waiting in enumerate(self._outcomes):
            started = time.perf_counter()
            try:
                self._context.cancel.raise_if_cancelled()
                outcome = self._one(waiting, clock.for_scan(index, waiting.scan.name))
            except CancelledError:
                self._note(index, replace(waiting, status=CANCELLED))
                raise
            except Exception as error:  # one bad scan, whatever is bad about it, must not stop the rest
                logger.warning("%s failed", waiting.scan.path, exc_info=True)
                outcome = replace(waiting, status=FAILED, message=_sentence(error))
            self._note(index, replace(outcome, seconds=time.perf_counter() - started))
        self._context.emit(Progress(1.0, "Done", eta_seconds=0.0))
        return FolderResult(tuple(self._outcomes), self._summary)

    def _one(self, waiting: ScanOutcome, progress: ProgressCallback) -> ScanOutcome:
        scan, files = waiting.scan, self._files(waiting.scan)
        if scan.skipped:
            return replace(waiting, status=SKIPPED, message=scan.skipped)
        if scan.problem:
            raise RequestError(scan.problem)
        mend_interrupted(files.segmentation, files.report)
        earlier = None if self._request.overwrite else self._earlier(scan, files)
        if earlier is not None and earlier.up_to_date:
            progress(Progress(1.0, "Done before"))
            known = {"model": earlier.model, "found": earlier.found, "volumes_ml": earlier.volumes_ml}
            return replace(waiting, status=DONE_BEFORE, **known)
        make_folder(files.segmentation.parent)
        request = SegmentRequest(
            input=VolumeInput(path=str(scan.path), series=scan.series or ""),
            model=self._request.model,
            device=self._request.device,
            options=self._request.options,
            files=replace(files, overwrite=self._request.overwrite or earlier is not None),
        )
        result = segment_scan(request, self._context.with_events(progress, self._context.cancel))
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
        model_id = self._named_id() or recorded.get("id", "")
        return (
            recorded.get("id") == model_id
            and bool(recorded.get("sha256"))
            and recorded.get("sha256") == self._context.models.hash_of(model_id)
            and record.get("options") == comparable_options(self._request.options)
            and same_input(record, scan.path, scan.series, self._context.cancel)
        )

    def _named_id(self) -> str:
        """Id of the model that was named, "" if it is chosen for each scan."""
        model = self._context.models.named(self._request.model)
        return "" if model is None else model.manifest.id

    def _files(self, scan: Scan) -> OutputFiles:
        base = self._folder / scan.name
        return OutputFiles(
            base.with_name(base.name + format_named(self._request.suffix).suffix),
            base.with_name(base.name + PREVIEW_SUFFIX) if self._request.preview else None,
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
