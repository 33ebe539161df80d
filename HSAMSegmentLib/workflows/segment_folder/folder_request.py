"""What segmenting a folder in the background is asked for, and what it tells of each scan."""

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
        model: model id, or path of a file of weights; "" to choose one for each scan.
        device: "auto", "cpu", "cuda", ...
        options: organs, precision, post-processing; no region.
        preview: also write a picture per scan.
        suffix: format of the segmentations: its suffix, or its name ("dicom-seg").
        overwrite: do every scan again and replace what is there.
        workers: processes of this computer that segment a scan each at the same time.
        scheduler: address of a Dask scheduler ("tcp://host:8786") whose workers segment; "" to do it here.
        shard: "K/N" for the Kth of N parts of the scans, "" for all.
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
    """What became of one scan, in a scene or in a folder.

    Attributes:
        name: of the scan.
        state: `DONE`, `FAILED`, `SKIPPED` (it cannot be segmented), `CANCELLED` or `WAITING`.
        message: why it failed or was skipped, or the warnings of a finished one.
        volumes_ml: name and volume of every organ that was looked for, 0 if it was not found.
        output: name of the segmentation, or its file.
        path: the scan's file, or the folder with its DICOM files; empty for a scan of the scene.
        series: which series of that folder, empty for an only one.
        model: id of the model.
        seconds: how long it took.
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
        """Organs that were requested and not found."""
        return tuple(name for name, volume in self.volumes_ml if volume <= 0)


OnRows = Callable[["tuple[BatchRow, ...]"], None]
"""Told the state of all scans whenever it changes."""
