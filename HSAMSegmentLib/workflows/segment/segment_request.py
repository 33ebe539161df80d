"""What segmenting one scan is asked for. Plain data that a panel, a command line, Python and a worker share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.workflows.inputs import VolumeInput


@dataclass(frozen=True)
class OutputFiles:
    """Where the results of one scan go.

    Attributes:
        segmentation: the file of the organs.
        preview: picture, or None.
        report: JSON report, or None.
        overwrite: whether existing files may be replaced.
        statistics: table of the structures (CSV), or None.
        format: name of the segmentation's format ("rtstruct"), "" for that of its suffix.
    """

    segmentation: Path
    preview: Path | None = None
    report: Path | None = None
    overwrite: bool = False
    statistics: Path | None = None
    format: str = ""

    def all(self) -> tuple[Path, ...]:
        """Every file that is asked for."""
        return tuple(
            path for path in (self.segmentation, self.preview, self.report, self.statistics) if path is not None
        )


@dataclass(frozen=True)
class SegmentRequest:
    """Segment the organs of one scan.

    Attributes:
        input: the scan.
        model: model id, or path of a file of weights; "" to take the only installed one that fits.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        options: organs, region, precision, test-time augmentation, post-processing.
        files: files to write, None for none.
        output_folder: where a worker leaves the label array and the surfaces; "" if the result stays in this process.
        surfaces: also compute a closed surface per organ, where the worker can.
        preview: announce finished slices while the workflow runs.
    """

    kind: ClassVar[str] = "segment"

    input: VolumeInput
    model: str = ""
    device: str = "auto"
    options: SegmentOptions = field(default_factory=SegmentOptions)
    files: OutputFiles | None = None
    output_folder: str = ""
    surfaces: bool = False
    preview: bool = False
