"""Request for segmenting a folder in the background, and the results per scan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from HSAMSegmentLib.inference.options import SegmentOptions


@dataclass(frozen=True)
class FolderRequest:
    """Segment every scan of a folder, file by file.

    Attributes:
        source: folder with volume files and DICOM series, at any depth; or another list, see `io.scan_lists`.
        output: folder for the results.
        model: model ID, or path of a weights file; "" to choose one for each scan.
        device: "auto", "cpu", "cuda", ...
        options: organs, precision, post-processing; no region.
        preview: also write a picture per scan.
        suffix: format of the segmentations: its suffix, or its name ("dicom-seg").
        overwrite: segment every scan again and replace existing results.
        workers: number of local processes that segment in parallel.
        scheduler: address of a Dask scheduler ("tcp://host:8786") whose workers segment; "" to do it here.
        shard: "K/N" for the Kth of N parts of the scans; "" for all.
    """

    kind: ClassVar[str] = "segment folder"

    source: str
    output: str
    model: str = ""
    device: str = "auto"
    options: SegmentOptions = field(default_factory=SegmentOptions)
    preview: bool = False
    suffix: str = ".seg.nrrd"
    overwrite: bool = False
    workers: int = 1
    scheduler: str = ""
    shard: str = ""


@dataclass(frozen=True)
class FolderSummary:
    """The result of a `FolderRequest`.

    Attributes:
        summary: CSV file with a row per scan.
    """

    summary: str


DONE, FAILED, SKIPPED, CANCELLED, WAITING = "done", "failed", "skipped", "cancelled", "waiting"


@dataclass(frozen=True)
class BatchRow:
    """The outcome of one scan, in a scene or in a folder.

    Attributes:
        name: name of the scan.
        state: `DONE`, `FAILED`, `SKIPPED` (it cannot be segmented), `CANCELLED` or `WAITING`.
        message: why it failed or was skipped, or the warnings of a finished one.
        volumes_ml: name and volume of every requested organ, 0 if not found.
        output: name of the segmentation, or its file.
        path: the scan's file, or the folder with its DICOM files; empty for a scan of the scene.
        series: DICOM series in that folder; empty if there is only one.
        model: ID of the model.
        seconds: duration.
    """

    name: str
    state: str = WAITING
    message: str = ""
    volumes_ml: tuple[tuple[str, float], ...] = ()
    output: str = ""
    model: str = ""
    seconds: float = 0.0
    path: str = ""
    series: str = ""

    @property
    def not_found(self) -> tuple[str, ...]:
        """Organs that were requested but not found."""
        return tuple(name for name, volume in self.volumes_ml if volume <= 0)


OnRows = Callable[["tuple[BatchRow, ...]"], None]
"""Called with the state of all scans whenever it changes."""
